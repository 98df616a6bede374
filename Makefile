# Targets for developers and operators. Cargo builds everything.

CARGO ?= cargo
SKIPPED = $(or $(CARGO_TARGET_DIR),target)/skipped-tests.txt

.PHONY: all deb static reproducible install uninstall demo test check bench chaos fuzz soak clean

# contrib/release/build.sh explains SMALL.
all:
	@CARGO="$(CARGO)" SMALL="$(SMALL)" sh contrib/release/build.sh

# Installs the programs that `make` built. Builds nothing, so that root can run it without cargo.
# docs/installing.md lists the installed files.
#   PREFIX      programs, manual pages, completions, documents
#   SYSCONFDIR  directory above peipkg-manager/, the configuration; an existing one is kept
#   DESTDIR     prefix for every path, to stage a package; it appears in no file
#   INIT        systemd, sysvinit, openrc or runit: installs its service files where they work;
#               none: installs service files as examples only
#   TOOLS       no: leaves out peipkg-build and peipkg-repo with their pages and completions, for
#               machines with the official tools
#   REPLACE     yes: renames foreign programs of these names to .orig until `make uninstall`;
#               no: fails if there are any
#   BUILT       directory of the built programs
# `make uninstall` removes the files of the last install with this PREFIX and DESTDIR, except those
# that somebody changed.
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

# Builds a package for Debian or Ubuntu with dpkg-buildpackage, into OUT (target/deb).
deb:
	@sh contrib/debian/build.sh

# Builds programs that need no library of the system, into target/static: for musl if the toolchain has
# it, else for glibc. `make install BUILT=target/static` installs them. docs/installing.md says what
# they lack.
static:
	@CARGO="$(CARGO)" SMALL="$(SMALL)" STATIC=yes sh contrib/release/build.sh

# Builds the programs twice in two directories, for two users, and compares them byte by byte; builds
# the static ones and tries them in an empty root; installs with `cargo install`. Fails if a program
# is larger than its limit. Takes some minutes.
reproducible:
	@CARGO="$(CARGO)" sh contrib/release/test.sh

# Sets up a farm in target/demo and runs two sweeps.
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

# Every commit must pass this and the tests.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# Measures time and memory, each figure beside its goal and, where there is one, beside another program
# in the same run; then prints the most important figures again. Takes some twenty minutes, 3 GiB of
# disk below target/, and 100 MiB of /dev/shm; BENCH_SCALE=small takes three minutes. Exits 0 even if a goal
# is missed. docs/performance.md explains the figures.
bench: all
	CARGO="$(CARGO)" BIN=$(or $(CARGO_TARGET_DIR),target)/release python3 contrib/bench/run.py

# Plays the scheduling core through CASES random interleavings of its events. Kills a farm and its
# uploads KILLS times at random instants, with enough of everything and with too few files, processes,
# bytes of memory or disk. Sends REQUESTS random requests to the HTTP gate. Prints SEED, to repeat a
# run. Takes some minutes.
CASES ?= 500
KILLS ?= 300
REQUESTS ?= 50000
SEED ?= $(shell date +%s)
chaos:
	PEIPKG_TEST_SEEDS=$(CASES) PEIPKG_CHAOS_SEED=$(SEED) $(CARGO) test --lib farm::model_tests::random
	PEIPKG_CHAOS_KILLS=$(KILLS) PEIPKG_CHAOS_SEED=$(SEED) PEIPKG_FUZZ_REQUESTS=$(REQUESTS) \
		$(CARGO) test --test farm -- --nocapture --test-threads 1 manager_killed_at_any_instant \
		manager_killed_while_starved remote_index_read_during_kills random_requests_are_answered

# Fuzzes each reader of outside bytes for FUZZ_SECONDS, starting from the files of tests/corpus.
# Without cargo-fuzz, mutates each of these files blindly ROUNDS times instead. Then compares packages
# of ROUNDS random files with a second implementation, and reads ROUNDS spoilt packages.
FUZZ_SECONDS ?= 60
ROUNDS ?= 20000
fuzz:
	CARGO="$(CARGO)" FUZZ_SECONDS=$(FUZZ_SECONDS) PEIPKG_FUZZ_ROUNDS=$(ROUNDS) PEIPKG_FUZZ_SEED=$(SEED) sh contrib/fuzz/run.sh
	PEIPKG_FUZZ_ROUNDS=$(ROUNDS) PEIPKG_FUZZ_SEED=$(SEED) $(CARGO) test -p peipkg-tools --test format -- --nocapture random

# Runs one daemon for SOAK_ROUNDS rounds of 40 polls, 40 requests, a build and a reload. Compares
# its memory, threads and open files at the end with those after a twentieth of the rounds. Takes
# some minutes.
SOAK_ROUNDS ?= 500
soak:
	PEIPKG_SOAK_ROUNDS=$(SOAK_ROUNDS) $(CARGO) test --test farm -- --nocapture daemon_long_at_work

clean:
	$(CARGO) clean
