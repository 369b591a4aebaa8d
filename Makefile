# make          builds bin/runsc
# make run      builds, then shows a sandbox at work (needs root)
# make test     installs what the tests need, builds, runs every test (needs root)
# make syscalls FAMILY=signal    one family of system call tests on the host and in the sandbox
# make bench    figures beside native and runc, docs/performance.md and its chart;  make fuzz [FUZZTIME=30s]
GO ?= go
export CGO_ENABLED = 0
PLATFORM ?=
export HUSK_PLATFORM = $(PLATFORM)
FUZZTIME ?= 20s
PREFIX ?= /usr/local

.PHONY: all run test setup unit repo syscalls apps oci docker containerd bench docs fuzz bazel install clean

all:
	$(GO) build -trimpath -ldflags='-s -w' -o bin/runsc.new ./runsc
	@# A copy lies in larger pieces in the page cache than what the linker wrote page by page, which saves a tenth of a start.
	rm -f bin/runsc && cp bin/runsc.new bin/runsc && rm bin/runsc.new

run: all
	tools/demo.sh bin/runsc

setup:
	tools/setup.sh

test: setup all
	tools/test.sh

unit:
	$(GO) test ./pkg/... ./runsc/...

repo:
	$(GO) test ./test/repo

syscalls: all
	HUSK_FAMILY=$(FAMILY) $(GO) test -count=1 -v ./test/syscalls

apps oci docker containerd: all
	$(GO) test -count=1 -v ./test/$@

bench: all
	$(GO) run ./tools/bench -runsc bin/runsc -write docs

docs: all
	bin/runsc help syscalls >docs/syscalls.md

fuzz:
	tools/fuzz.sh $(FUZZTIME)

# The same binary by way of Bazel (BUILD), where that is installed; no server stays.
bazel:
	bazel --batch build //:runsc
	bazel-bin/bin/runsc --version

install: all
	install -m 0755 bin/runsc $(PREFIX)/bin/runsc

clean:
	rm -rf bin .cache
