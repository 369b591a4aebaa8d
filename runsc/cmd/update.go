package cmd

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"husk/runsc/container"
	"husk/runsc/spec"
)

func updateCommand() command {
	return command{
		name: "update", args: "<container-id>", summary: "update container resource constraints", min: 1, max: 1,
		text: `Changes limits of a container, on the host and in the sandbox. A file of resources
has the form of linux.resources in config.json; what is left out or 0 stays as it is:

{
  "memory": {"limit": 0, "reservation": 0, "swap": 0},
  "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
  "blockIO": {"weight": 0},
  "pids": {"limit": 0}
}

With such a file all other options are ignored.
`,
		setup: func(f *flagSet) func(*env, []string) error {
			u := newUpdateFlags(f)
			return func(e *env, args []string) error {
				r, err := u.resources(os.Stdin)
				if err != nil {
					return err
				}
				return withContainer(e, args[0], func(c *container.Container) error { return c.Update(r) })
			}
		},
	}
}

// updateFlags are the flags of update; 0 and "" stand for no change.
type updateFlags struct {
	file                      string
	memory, reservation, swap int64
	quota, rtRuntime          int64
	period, shares, rtPeriod  int64
	pids, weight              int64
	cpus, mems                string
}

func newUpdateFlags(f *flagSet) *updateFlags {
	u := new(updateFlags)
	number := func(p *int64, name, help string, min, max int64) {
		f.add(name, "value", help, func(v string) error {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < min || n > max {
				return fmt.Errorf("%q is not a number from %d to %d", v, min, max)
			}
			*p = n
			return nil
		})
	}
	size := func(p *int64, name, help string) {
		f.add(name, "value", help, func(v string) (err error) { *p, err = parseSize(v); return err })
	}
	f.str(&u.file, "resources,r", "path to the file containing the resources to update or '-' to read from the standard input")
	number(&u.weight, "blkio-weight", "Specifies per cgroup weight, range is from 10 to 1000", 0, 1000)
	number(&u.period, "cpu-period", "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default", 0, math.MaxInt64)
	number(&u.quota, "cpu-quota", "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period", -1, math.MaxInt64)
	number(&u.shares, "cpu-share", "CPU shares (relative weight vs. other containers)", 0, math.MaxInt64)
	number(&u.rtPeriod, "cpu-rt-period", "CPU realtime period to be used for hardcapping (in usecs). 0 to use system default", 0, math.MaxInt64)
	number(&u.rtRuntime, "cpu-rt-runtime", "CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period", -1, math.MaxInt64)
	f.str(&u.cpus, "cpuset-cpus", "CPU(s) to use")
	f.str(&u.mems, "cpuset-mems", "Memory node(s) to use")
	size(&u.memory, "memory", "Memory limit (in bytes)")
	size(&u.reservation, "memory-reservation", "Memory reservation or soft_limit (in bytes)")
	size(&u.swap, "memory-swap", "Total memory usage (memory + swap); set '-1' to enable unlimited swap")
	number(&u.pids, "pids-limit", "Maximum number of pids allowed in the container", -1, math.MaxInt64)
	return u
}

// resources are those of the file if there is one, else those of the flags.
func (u *updateFlags) resources(stdin io.Reader) (*specs.LinuxResources, error) {
	r := new(specs.LinuxResources)
	if u.file != "" {
		data, err := readResources(u.file, stdin)
		if err == nil {
			err = spec.Decode(data, func(c *spec.JSON) { spec.Resources(c, r) })
		}
		if err != nil {
			return nil, fmt.Errorf("resources: %w", err)
		}
		return r, nil
	}
	period, shares, rtPeriod, weight := uint64(u.period), uint64(u.shares), uint64(u.rtPeriod), uint16(u.weight)
	r.Memory = &specs.LinuxMemory{Limit: &u.memory, Reservation: &u.reservation, Swap: &u.swap}
	r.CPU = &specs.LinuxCPU{
		Quota: &u.quota, Period: &period, Shares: &shares, RealtimeRuntime: &u.rtRuntime, RealtimePeriod: &rtPeriod, Cpus: u.cpus, Mems: u.mems,
	}
	r.Pids = &specs.LinuxPids{Limit: &u.pids}
	r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	return r, nil
}

// maxResources bounds the file of resources, in bytes.
const maxResources = 1 << 20

func readResources(path string, stdin io.Reader) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	data, err := io.ReadAll(io.LimitReader(stdin, maxResources+1))
	if err == nil && len(data) > maxResources {
		err = fmt.Errorf("more than %d bytes", maxResources)
	}
	return data, err
}

// parseSize reads a number of bytes with an optional unit: b, k, m, g, t or p, also as kb or kib; -1 is no limit.
func parseSize(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= -1 {
		return n, nil
	}
	number := strings.TrimRight(s, "bBiIkKmMgGtTpP ")
	unit, bytes := strings.CutSuffix(strings.ToLower(strings.TrimSpace(s[len(number):])), "b")
	if bytes {
		unit = strings.TrimSuffix(unit, "i")
	}
	power := 0
	if unit != "" {
		power = 1 + strings.Index("kmgtp", unit)
	}
	n, err := strconv.ParseFloat(number, 64)
	n *= math.Pow(1024, float64(power))
	if err != nil || len(unit) > 1 || unit != "" && power == 0 || !(n >= 0) || n >= math.MaxInt64 {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	return int64(n), nil
}
