# sessauth: extension (PGXS), node library and gate.
#
#   make            build everything            make demo    play the story
#   make install    into PG_CONFIG's tree       make test    run every test

EXTENSION   = sessauth
EXTVERSION  = 0.1
MODULE_big  = sessauth
OBJS        = $(patsubst %.c,%.o,$(wildcard src/*.c src/core/*.c src/server/*.c src/ledger/*.c src/worker/*.c))
DATA_built  = $(EXTENSION)--$(EXTVERSION).sql
CHAPTERS    = $(sort $(wildcard sql/[0-9]*.sql))

PG_CPPFLAGS = -Isrc -DSESSAUTH_VERSION='"$(EXTVERSION)"'
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare -std=gnu11
SHLIB_LINK  = -lhiredis -ljansson -lssl -lcrypto

REGRESS      = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --expecteddir=. --dbname=contrib_regression

# Just-in-time inlining has nothing to gain here, and clang would become a build dependency.
override with_llvm = no

EXTRA_CLEAN = $(DATA_built) build results regression.diffs regression.out tmp_check output_iso

PG_CONFIG  ?= pg_config
PGXS       := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(DATA_built): $(CHAPTERS)
	cat $^ > $@

# Every object depends on every header: there are few, and a stale object costs more.
$(OBJS): $(wildcard src/*/*.h)

include src/node/node.mk

.PHONY: demo test
demo:
	@test/demo
test:
	@test/run
