package stub

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
)

// HostVDSO is where this process has the vvar pages, [base, ehdr), and the vdso, [ehdr, end), which moves only as a whole.
// ehdr is 0 where there is none.
func HostVDSO() (base, ehdr, end uint64) { return hostVDSO() }

// VDSOText is the vdso of this process: that of the stubs, which is the same, without being theirs. nil where there is none.
func VDSOText() []byte {
	_, ehdr, end := hostVDSO()
	if ehdr == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&ehdr))), end-ehdr)
}

// maxVVAR bounds the search for the vvar pages below the vdso. Linux 6.18 has six.
const maxVVAR = 32 * arch.PageSize

// hostVDSO finds the vvar pages and the vdso of this process without /proc, which the sentry may not have:
// [base, ehdr) is vvar and [ehdr, end) the vdso. ehdr is 0 where there is none.
func hostVDSO() (base, ehdr, end uint64) {
	aux, err := unix.Auxv()
	if err != nil {
		return 0, 0, 0
	}
	for _, kv := range aux {
		if kv[0] == 33 { // AT_SYSINFO_EHDR
			ehdr = uint64(kv[1])
		}
	}
	if ehdr == 0 || ehdr%arch.PageSize != 0 {
		return 0, 0, 0
	}
	// Elf64_Ehdr: e_phoff at 32, e_phnum at 56. Elf64_Phdr: p_type at 0, p_vaddr at 16, p_memsz at 40.
	e := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&ehdr))), arch.PageSize)
	phoff, phnum := *(*uint64)(unsafe.Pointer(&e[32])), int(*(*uint16)(unsafe.Pointer(&e[56])))
	if phoff > arch.PageSize/2 || phnum > 16 {
		return 0, 0, 0
	}
	for i := range phnum {
		ph := e[int(phoff)+56*i:]
		if *(*uint32)(unsafe.Pointer(&ph[0])) == 1 { // PT_LOAD
			end = max(end, ehdr+*(*uint64)(unsafe.Pointer(&ph[16]))+*(*uint64)(unsafe.Pointer(&ph[40])))
		}
	}
	end, _ = arch.PageUp(end)
	if end <= ehdr || end-ehdr > 1<<20 {
		return 0, 0, 0
	}
	base = ehdr
	for ehdr-base < maxVVAR && isIOPage(base-arch.PageSize) {
		base -= arch.PageSize
	}
	return base, ehdr, end
}

// isIOPage says whether a page is mapped as device memory, as the vvar pages are: msync(2) fails on
// what is not mapped, and madvise(2) refuses MADV_DOFORK for VM_IO.
func isIOPage(addr uint64) bool {
	if _, _, e := unix.RawSyscall(unix.SYS_MSYNC, uintptr(addr), arch.PageSize, unix.MS_ASYNC); e != 0 {
		return false
	}
	_, _, e := unix.RawSyscall(unix.SYS_MADVISE, uintptr(addr), arch.PageSize, unix.MADV_DOFORK)
	return e == unix.EINVAL
}

// moveVDSO moves the pages [base, end) of the zygote to dest. The kernel moves such mappings only as a whole, so their
// borders are found by trial.
func (z *Zygote) moveVDSO(base, end, dest uint64) error {
	for from := base; from < end; {
		n := uint64(arch.PageSize)
		for ; ; n += arch.PageSize {
			if from+n > end {
				return unix.EINVAL
			}
			_, err := z.Call(unix.SYS_MREMAP, from, n, n, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, dest+from-base)
			if err == nil {
				break
			}
			if err == unix.EPERM || err == ErrGone || err == ErrEnded {
				return err
			}
		}
		from += n
	}
	return nil
}
