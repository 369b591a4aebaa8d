package clock

// Ticks counts processor cycles, or nanoseconds where these are no clock: it costs a fourth of Monotonic and is for accounting. Values of
// two processors may differ a little.
func Ticks() int64 {
	if tsc {
		return rdtsc()
	}
	return nanotime()
}

// TicksToNS is the length of d ticks in nanoseconds.
func TicksToNS(d int64) int64 {
	if !tsc {
		return d
	}
	t, n := rdtsc()-baseTicks, nanotime()-baseNS
	if t <= 0 || n < minCalibration {
		return d / 2 // too early to tell: about right at 2 GHz
	}
	return int64(float64(d) * (float64(n) / float64(t)))
}

// minCalibration is how long, in nanoseconds, both clocks must have run to be compared.
const minCalibration = 20000

var (
	tsc       = invariantTSC()
	baseTicks = rdtsc()
	baseNS    = nanotime()
)

func rdtsc() int64
func invariantTSC() bool
