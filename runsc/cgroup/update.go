package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Update changes the limits that r has; what is 0 or empty in it stays as it is.
func (p *Paths) Update(r *specs.LinuxResources) error {
	u := *r
	if m := u.Memory; m != nil {
		memory := *m
		if memory.Limit != nil && *memory.Limit == -1 && (memory.Swap == nil || *memory.Swap == 0) {
			memory.Swap = memory.Limit // as runc: no limit of memory is none of memory and swap together
		}
		u.Memory = &memory
	}
	if c := u.CPU; c != nil && (c.Cpus != "" || c.Mems != "") && !p.isV2() {
		if err := p.addCpuset(); err != nil {
			return err
		}
	}
	if p.isV2() {
		p.completeV2(&u)
	}
	list, err := p.settings(&u)
	if err != nil {
		return err
	}
	p.order(list)
	for i, s := range list {
		err := p.set(s)
		if s.file == "cpu.cfs_period_us" && errors.Is(err, unix.EINVAL) && i+1 < len(list) && list[i+1].file == "cpu.cfs_quota_us" {
			// The new period does not go with the old quota; then the new quota goes with the old period.
			if err = p.set(list[i+1]); err == nil {
				err = p.set(s)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// order brings the limits of memory, and of memory and swap together, into the order that keeps the former below the latter.
func (p *Paths) order(list []setting) {
	i := slices.IndexFunc(list, func(s setting) bool { return s.file == "memory.limit_in_bytes" })
	j := slices.IndexFunc(list, func(s setting) bool { return s.file == "memory.memsw.limit_in_bytes" })
	if i < 0 || j < 0 {
		return
	}
	memory, err := strconv.ParseInt(list[i].value, 10, 64)
	now, nerr := readInt(p.V1["memory"], list[j].file)
	if err == nil && nerr == nil && (memory < 0 || uint64(memory) > now) {
		list[i], list[j] = list[j], list[i]
	}
}

// completeV2 fills in what the files of the unified hierarchy hold together with what is to be changed.
func (p *Paths) completeV2(r *specs.LinuxResources) {
	if m := r.Memory; m != nil && m.Swap != nil && *m.Swap > 0 && (m.Limit == nil || *m.Limit == 0) {
		if now, err := readInt(p.V2, "memory.max"); err == nil && now <= uint64(*m.Swap) {
			limit := int64(now)
			m.Limit = &limit
		}
	}
	if c := r.CPU; c != nil {
		text, err := os.ReadFile(filepath.Join(p.V2, "cpu.max"))
		f := strings.Fields(string(text))
		if err != nil || len(f) != 2 {
			return
		}
		cpu := *c
		if cpu.Period == nil || *cpu.Period == 0 {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				cpu.Period = &n
			}
		}
		if cpu.Quota == nil || *cpu.Quota == 0 {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				cpu.Quota = &n
			}
		}
		if c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period != 0 {
			r.CPU = &cpu
		}
	}
}

// addCpuset makes the container's cpuset, which is left out at first (see skipped), and moves its processes there.
func (p *Paths) addCpuset() error {
	if p.V1["cpuset"] != "" {
		return nil
	}
	hs, err := mounts()
	if err != nil {
		return err
	}
	var point, path string
	for _, h := range hs {
		for _, n := range h.names {
			if n == "cpuset" {
				point = h.point
			}
			if rel, ok := strings.CutPrefix(p.V1[n], h.point+"/"); ok && (n == "pids" || path == "") {
				path = rel
			}
		}
	}
	if point == "" || path == "" {
		return fmt.Errorf("cpuset: %w", errNoController)
	}
	dir := filepath.Join(point, path)
	if unix.Access(dir, unix.F_OK) != nil {
		p.Own = append(p.Own, dir)
	}
	if err := p.mkdir(dir); err != nil {
		return err
	}
	p.V1["cpuset"] = dir
	if err := inheritCpuset(dir); err != nil {
		return err
	}
	return p.follow(dir)
}

// follow moves all processes of the container into dir too. They may be multiplying.
func (p *Paths) follow(dir string) error {
	from := p.V1["pids"]
	if from == "" {
		from = p.V1["memory"]
	}
	moved := map[string]bool{}
	for again := true; again; {
		again = false
		text, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, pid := range strings.Fields(string(text)) {
			if moved[pid] {
				continue
			}
			moved[pid], again = true, true
			if err := write(dir, "cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}
