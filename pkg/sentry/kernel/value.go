package kernel

// ValueOr returns what an upper layer stored under key, and stores what make gives if that is nothing. Of
// several callers at once all get the same value.
func (k *Kernel) ValueOr(key any, make func() any) any {
	if v, ok := k.extra.Load(key); ok {
		return v
	}
	v, _ := k.extra.LoadOrStore(key, make())
	return v
}
