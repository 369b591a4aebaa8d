// Package mm holds the address spaces of application processes: mappings, the pages behind them with
// copy-on-write, copies between the sentry and application memory, and the system calls that change all that.
//
// A MemoryManager knows two maps. The mappings (vmas) are what /proc/PID/maps shows. The pages are what has
// been found to back the mappings so far: ranges of the sandbox's memory file or of host files. The platform's
// address space is a cache of the pages: what it has not mapped makes the application fault, and HandleFault
// maps it. Anonymous mappings get large sparse extents of the memory file at their first fault, so that
// the host kernel resolves first touches, and the sentry sees one event for a region.
//
// Changes of the pages are collected and given to the platform at once (flush.go). It may put them off until the application
// runs on; until it says that they are made, the pages that they take away stay allocated.
//
// Small memory that the application gives up and asks for again at the same place, over and over, stays mapped without rights in between
// (spare.go).
//
// Fork shares pages until they are written, but for those that either side wrote soon after the last fork (fork.go): they are
// copied at once, and the parent's stay writable.
//
// The package must not import the packages above it: vfs, kernel, file systems. Files reach it as Mappable.
//
// Locks, outer to inner; indented ones are taken with those above them held:
//
//	locks of inodes that serialise reads, writes and truncation (not mm's; may be held in calls of IOSeq's
//	methods and of MappingSet.Invalidate)
//	  MemoryManager.mu (the mappings)
//	    MappingSet.mu
//	    MemoryManager.pagesMu (the pages; held while bytes of user memory are copied)
//	      locks that Mappable.Translate takes; they must not be held in calls of IOSeq's methods
//	        memfile.File's lock, brokenRanges.mu, locks of the platform
//
// Functions given to IOSeq.CopyOutFrom and CopyInTo run with pagesMu held for reading: they must
// neither touch user memory nor block for long, nor take a lock that is held around calls of this package.
//
// Fork locks the parent, then the child, which nobody else knows yet.
package mm
