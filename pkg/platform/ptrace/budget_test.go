package ptrace

import "testing"

// TestFilterBudget holds P-8.
func TestFilterBudget(t *testing.T) {
	const instructions = 40
	if n := len(stubFilter()); n > instructions {
		t.Errorf("the filter has %d instructions, the budget is %d", n, instructions)
	}
}
