//go:build race

package kernel_test

// raceEnabled tells whether the race detector, which makes more values escape, is on.
const raceEnabled = true
