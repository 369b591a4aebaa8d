// The declaration of readProfile has no body; a file in assembly tells the compiler that this is intended.
