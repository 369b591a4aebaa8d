package systrap

import "testing"

// TestFilterBudget holds P-8: every system call of a stub pays for the filter's length.
func TestFilterBudget(t *testing.T) {
	const instructions = 44 // those behind the secret cost nobody but the memory thread
	if n := len(filter(secret{1, 2, 3}, 9)); n > instructions {
		t.Errorf("the filter has %d instructions, the budget is %d", n, instructions)
	}
}
