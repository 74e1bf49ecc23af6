# Unit tests of src/core and of the parts of src/node that do no I/O: plain C programs that print TAP, built with sanitizers.
#
#   make check-unit		runs them
#   make unit-tests		builds them, and prints their names

comma       = ,
UNIT_DIR    = build/unit
UNIT_CC    ?= $(CC)
UNIT_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined \
              -fno-sanitize-recover=undefined -Isrc -Itest/unit
UNIT_LIBS   = -lhiredis -ljansson -lssl -lcrypto
UNIT_CORE   = $(patsubst src/core/%.c,$(UNIT_DIR)/core/%.o,$(wildcard src/core/*.c))
UNIT_NODE   = $(patsubst %,$(UNIT_DIR)/node/%.o,breaker clock coverage keyed lease many_readers memory pg_row redis_reader seen watch)
UNIT_TESTS  = $(patsubst test/unit/%.c,$(UNIT_DIR)/%,$(wildcard test/unit/test_*.c))
UNIT_HEADERS = $(wildcard src/core/*.h src/node/*.h test/unit/*.h)

$(UNIT_DIR)/core/%.o: src/core/%.c $(UNIT_HEADERS)
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) -c $< -o $@

$(UNIT_DIR)/node/%.o: src/node/%.c $(UNIT_HEADERS)
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) -c $< -o $@

$(UNIT_DIR)/test_%: test/unit/test_%.c $(UNIT_CORE) $(UNIT_NODE) $(UNIT_HEADERS)
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) $< $(UNIT_CORE) $(UNIT_NODE) $(UNIT_LIBS) -o $@

# It includes that file, to have its clock in hand.
$(UNIT_DIR)/test_decide: src/node/decide.c

# Every allocation of ours can be made to fail there.
$(UNIT_DIR)/test_memory: UNIT_LIBS += -Wl,--wrap=malloc,--wrap=calloc

.PHONY: check-unit unit-tests
unit-tests: $(UNIT_TESTS)
	@echo $(UNIT_TESTS)

check-unit: $(UNIT_TESTS)
	prove $(UNIT_TESTS)

# Programs that Perl tests start, and a library that one of them preloads.
TEST_TOOLS = build/tools/publisher build/tools/wall_clock.so build/tools/node_watch-address build/tools/few_descriptors-address build/tools/node_threads-valgrind \
             $(foreach sanitizer,thread address,build/tools/node_threads-$(sanitizer) build/tools/ask_threads-$(sanitizer) \
                 build/tools/sessauth-gate-$(sanitizer))

build/tools/%: test/tools/%.c $(UNIT_CORE) $(UNIT_HEADERS)
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) $< $(UNIT_CORE) $(UNIT_LIBS) -o $@

build/tools/%.so: test/tools/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -Wall -Wextra -Werror -O1 -fPIC -shared $< -o $@

# The whole library and the gate once more, under a sanitizer that it cannot have together with the others.
SANITIZED_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -Wno-format-truncation -g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all -pthread \
                   -D_GNU_SOURCE -DSESSAUTH_VERSION='"$(EXTVERSION)"' -Isrc -I$(includedir)
SANITIZED_NODE   = $(patsubst src/%.c,%.o,$(wildcard src/core/*.c src/node/*.c))
SANITIZED_GATE   = $(patsubst src/%.c,%.o,$(wildcard src/gate/*.c))

# sanitized NAME,FLAGS: node_threads-NAME, ask_threads-NAME, node_watch-NAME, few_descriptors-NAME and sessauth-gate-NAME
define sanitized
build/tools/$(1)/%.o: src/%.c $(UNIT_HEADERS) $(wildcard src/gate/*.h)
	@mkdir -p $$(@D)
	$(UNIT_CC) $(SANITIZED_CFLAGS) -fsanitize=$(2) -c $$< -o $$@

build/tools/node_threads-$(1) build/tools/ask_threads-$(1) build/tools/node_watch-$(1) build/tools/few_descriptors-$(1): build/tools/%-$(1): test/tools/%.c $(addprefix build/tools/$(1)/,$(SANITIZED_NODE))
	$(UNIT_CC) $(SANITIZED_CFLAGS) -fsanitize=$(2) $$^ -L$(libdir) $(NODE_LIBS) -o $$@

build/tools/sessauth-gate-$(1): $(addprefix build/tools/$(1)/,$(SANITIZED_NODE) $(SANITIZED_GATE))
	$(UNIT_CC) -fsanitize=$(2) $$^ -L$(libdir) -levent_extra $(NODE_LIBS) -o $$@
endef
$(eval $(call sanitized,thread,thread))
$(eval $(call sanitized,address,address$(comma)undefined))

# The library as it is installed; valgrind brings what sanitizers build in.
build/tools/node_threads-valgrind: test/tools/node_threads.c $(NODE_DIR)/libsessauth.a
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -Wall -Wextra -Werror -g -O2 -pthread -Isrc $^ -L$(libdir) $(NODE_LIBS) -o $@

.PHONY: test-tools
test-tools: $(TEST_TOOLS)
