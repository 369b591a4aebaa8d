package systrap

// A hand-off that does not adapt, for comparison only: where fixedPace is true, stub threads and the sentry always spin for as many
// microseconds and then sleep, whatever was before. tools/bench builds the runtime with other values of these (go build -overlay);
// in this build the compiler drops what depends on them.
const (
	fixedPace   = false
	fixedStub   = 0
	fixedSentry = 0
)
