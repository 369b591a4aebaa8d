package kernel

import "math/bits"

func lowestBit(v uint64) int { return bits.TrailingZeros64(v) }
