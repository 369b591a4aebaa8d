package arch

// xgetbv0 reads XCR0 (xgetbv_amd64.s).
func xgetbv0() uint64
