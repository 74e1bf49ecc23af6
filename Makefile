# sessauth: extension (PGXS), node library and gate.
#
#   make            build everything            make demo    play the story
#   make install    into PG_CONFIG's tree       make test    run every test

EXTENSION   = sessauth
EXTVERSION  = 0.2
MODULE_big  = sessauth
OBJS        = $(patsubst %.c,%.o,$(wildcard src/*.c src/core/*.c src/server/*.c src/ledger/*.c src/worker/*.c))
DATA        = $(wildcard sql/upgrade/*.sql)
DATA_built  = $(EXTENSION)--$(EXTVERSION).sql
CHAPTERS    = $(sort $(wildcard sql/[0-9]*.sql))

PG_CPPFLAGS = -Isrc -DSESSAUTH_VERSION='"$(EXTVERSION)"'
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare -std=gnu11
SHLIB_LINK  = -lhiredis -lcares -ljansson -lssl -lcrypto -Wl,--version-script=src/exports.map

# Against a running server whose shared_preload_libraries has sessauth. Expected output
# of specs lies beside them; where to look for it became an option in version 16.
REGRESS        = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS   = --inputdir=test --load-extension=sessauth
ISOLATION      = $(sort $(patsubst test/isolation/specs/%.spec,%,$(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=sessauth \
	$(if $(filter 14 15,$(MAJORVERSION)),,--expecteddir=test/isolation)

# Just-in-time inlining has nothing to gain here, and clang would become a build dependency.
override with_llvm = no

EXTRA_CLEAN = $(DATA_built) build results regression.diffs regression.out tmp_check output_iso

PG_CONFIG  ?= pg_config

all:

# demo and test come first, because they also install what the rest needs.
.PHONY: demo test
demo:
	@PG_CONFIG='$(PG_CONFIG)' test/demo
test:
	@PG_CONFIG='$(PG_CONFIG)' TESTS='$(TESTS)' test/run

ifneq ($(filter-out demo test,$(or $(MAKECMDGOALS),all)),)

PGXS       := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(DATA_built): $(CHAPTERS)
	cat $^ > $@

# Every object depends on every header: there are few, and a stale object costs more.
$(OBJS): Makefile $(wildcard src/*/*.h)

sessauth.so: src/exports.map

include src/node/node.mk
include test/unit/unit.mk
include test/bench/bench.mk

endif
