# Targets for people; cargo does the work.

CARGO ?= cargo
SKIPPED = $(or $(CARGO_TARGET_DIR),target)/skipped-tests.txt

.PHONY: all install uninstall demo test check bench chaos fuzz soak clean

all:
	$(CARGO) build --release --workspace

# Installs what `make` has built; builds nothing, so that it can be run by root. docs/installing.md lists what goes where.
#   PREFIX      programs, manual pages, completions, documents
#   SYSCONFDIR  the configuration is in SYSCONFDIR/peipkg-manager; one that is there is never overwritten
#   DESTDIR     put before every path, to stage a package; it appears in no file
#   INIT        systemd, sysvinit, openrc or runit: its service files are installed where they work; none: as examples only
#   TOOLS       no: without peipkg-build and peipkg-repo, where the official ones are
#   REPLACE     yes: programs of somebody else with these names are kept as .orig, and put back by `make uninstall`; no: they end it
#   BUILT       where the programs are
# `make uninstall` removes what the last install with this PREFIX and DESTDIR has put there, and nothing that has been changed since.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
INIT ?= none
TOOLS ?= yes
REPLACE ?= no
BUILT ?= $(or $(CARGO_TARGET_DIR),target)/release
install uninstall: export PREFIX := $(PREFIX)
install uninstall: export SYSCONFDIR := $(SYSCONFDIR)
install uninstall: export DESTDIR := $(DESTDIR)
install uninstall: export INIT := $(INIT)
install uninstall: export TOOLS := $(TOOLS)
install uninstall: export REPLACE := $(REPLACE)
install uninstall: export BUILT := $(BUILT)
install uninstall:
	@sh contrib/install.sh $@

# Builds a farm from nothing and lets it work, in target/demo.
demo:
	sh contrib/demo/demo.sh

# Every test. The tests that lack an optional program or a right are listed at the end. Many tests only wait for a deadline, so more
# of them run at once than there are processors.
TEST_THREADS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
test:
	@echo "After compiling, the tests take about three minutes on two processors. Tests that mount file systems, boot systemd or cron in a"
	@echo "copy of the machine, or start services as another user need root; without it they are skipped and listed at the end."
	@mkdir -p $(dir $(SKIPPED)) && : > $(SKIPPED)
	RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --workspace
	@if [ -s $(SKIPPED) ]; then echo; echo "SKIPPED, for want of a program or a right:"; cat $(SKIPPED); fi

# What a change must pass before it is committed, beside the tests.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# Times and memory of sweeps over many upstreams, in target/bench-sweeps/, of a farm at work, in target/bench/, and of the daemon
# under load. It takes some minutes and a few GiB of disk. docs/performance.md explains the figures.
bench:
	python3 contrib/bench/sweeps.py
	sh contrib/bench/builds.sh
	$(CARGO) bench --bench daemon

# Kills a farm and its uploads at random instants, KILLS times, from SEED on, which is printed. It takes some minutes.
KILLS ?= 300
SEED ?= $(shell date +%s)
chaos:
	PEIPKG_CHAOS_KILLS=$(KILLS) PEIPKG_CHAOS_SEED=$(SEED) $(CARGO) test --test farm -- --nocapture --test-threads 1 \
		manager_killed_at_any_instant remote_index_read_during_kills

# Fuzzes each reader of outside bytes for FUZZ_SECONDS, from the files of tests/corpus on. Where cargo-fuzz is not installed, each
# of these files is mutated blindly instead, ROUNDS times.
FUZZ_SECONDS ?= 60
ROUNDS ?= 20000
fuzz:
	CARGO="$(CARGO)" FUZZ_SECONDS=$(FUZZ_SECONDS) PEIPKG_FUZZ_ROUNDS=$(ROUNDS) PEIPKG_FUZZ_SEED=$(SEED) sh contrib/fuzz/run.sh

# Keeps one daemon at work for SOAK_ROUNDS rounds, of 40 polls, 40 requests, a build and a reload each, and holds its memory,
# threads and open files at the end against those after the first twentieth. It takes some minutes.
SOAK_ROUNDS ?= 500
soak:
	PEIPKG_SOAK_ROUNDS=$(SOAK_ROUNDS) $(CARGO) test --test farm -- --nocapture daemon_long_at_work

clean:
	$(CARGO) clean
