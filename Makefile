# SPDX-License-Identifier: Apache-2.0
# Thin over meson. `make help` lists what there is.
BUILD     ?= build
ISOLATION ?= jail
SUITE     ?=
JOBS      ?= $(shell nproc)

.PHONY: all help demo check check-deep soak bench format tidy clean install uninstall

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j $(JOBS)

$(BUILD)/build.ninja:
	@tools/install-packages build
	@meson setup $(BUILD) >$(BUILD).setup.log 2>&1 || { tail -n 20 $(BUILD).setup.log; exit 1; }
	@rm -f $(BUILD).setup.log

help:
	@echo "make              build; leaves $(BUILD)/aviary and $(BUILD)/aviaryd"
	@echo "make demo         build, start a daemon of its own, run real work in a sandbox, stop"
	@echo "make demo ISOLATION=vm   the same of a sandbox with a kernel of its own: paused to the disk, resumed, copied"
	@echo "make check        build and run every test family (SUITE=unit for one)"
	@echo "make check-deep   sanitizers, second compiler, clang-tidy, fuzzing, Debian's kernel in QEMU, both templates, virtual machines, an upgrade"
	@echo "make soak         the long runs: 10,000 cycles and more"
	@echo "make bench        measure; writes $(BUILD)/bench.json"
	@echo "make format tidy  lay out and analyse the sources"
	@echo "make install      install (DESTDIR and meson's prefix are honoured): docs/operations.md"
	@echo "make uninstall    remove what that installed; 'aviary cleanup --all' removes the state"

demo: all
	@ISOLATION=$(ISOLATION) BUILD=$(BUILD) tools/demo.sh

check:
	@tools/install-packages build check
	@$(MAKE) --no-print-directory all
	@tools/run-tests --build $(BUILD) $(if $(SUITE),--suite $(SUITE))

check-deep:
	@tools/install-packages build check deep
	@tools/check-deep

soak:
	@tools/install-packages build check
	@$(MAKE) --no-print-directory all
	@tools/run-tests --build $(BUILD) --suite soak

bench:
	@tools/install-packages build bench
	@$(MAKE) --no-print-directory all
	@$(BUILD)/aviary bench --output $(BUILD)/bench.json

format:
	@tools/install-packages deep
	@git ls-files '*.c' '*.h' | xargs clang-format-14 -i

tidy: all
	@tools/install-packages deep
	@tools/run-tidy $(BUILD)

install: all
	@meson install -C $(BUILD) --no-rebuild --quiet
	@tools/after-install $(BUILD)

uninstall:
	@tools/uninstall $(BUILD)

clean:
	@rm -rf $(BUILD) build-asan build-clang build-fuzz
