package container

import (
	"errors"
	"time"

	"husk/runsc/boot"
)

// Profile returns a profile of the container's sandbox, boot.ProfileCPU and so on; d is how long a CPU profile takes. Its
// bytes are the sandbox's word: they are not to be trusted.
func (c *Container) Profile(what uint8, d time.Duration) (string, error) {
	if c.CurrentStatus() == Stopped {
		return "", ErrNotRunning
	}
	cl, err := c.connect()
	if err != nil {
		return "", err
	}
	defer cl.Close()
	// Twice the quick time for the answer: a profile stops the world and is large.
	within := int((d+time.Second-1)/time.Second) + 120
	r, err := cl.CallWithin(within, boot.KindProfile, &boot.ProfileRequest{What: what, Duration: int64(d)})
	if err != nil {
		return "", err
	}
	if len(r.Profile) > boot.MaxProfile {
		return "", errors.New("the sandbox sent a profile that exceeds the limit")
	}
	return r.Profile, nil
}
