// What is wrong with a kernel, and what it did: kept while it runs, and written to standard output when it ends.
#pragma once

namespace {

bool checked;

// ---- Counters, of checked runs.

struct {
  uint64_t device_bytes_read, device_bytes_written, constant_bytes_read;
  uint64_t threadgroup_bytes_read, threadgroup_bytes_written;
  uint64_t mma_operations, fma_operations, barriers, collectives, threadgroup_memory;
} counters;

void count_collective(const char* name, bool is_matrix) {
  if (is_matrix)
    counters.mma_operations++;
  else if (strcmp(name, "simdgroup_barrier") != 0)
    counters.collectives++;
}

// ---- Findings: identical ones are counted, those beyond the first few are dropped.

const int MAX_FINDINGS = 20;

struct Finding {
  uint64_t key;
  int line;
  uint64_t count;
  char message[360];
} findings[MAX_FINDINGS];
int finding_count;

// Has a finding with this key been made before? Then it is counted once more.
bool found_before(uint64_t key) {
  for (int i = 0; i < finding_count; i++)
    if (findings[i].key == key) return findings[i].count++, true;
  return false;
}

void vfind(uint64_t key, int line, const char* format, va_list arguments) {
  if (finding_count == MAX_FINDINGS) return;
  Finding& finding = findings[finding_count++];
  finding.key = key;
  finding.line = line;
  finding.count = 1;
  vsnprintf(finding.message, sizeof finding.message, format, arguments);
}

__attribute__((format(printf, 3, 4))) void find(uint64_t key, int line, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfind(key, line, format, arguments);
  va_end(arguments);
}

__attribute__((noreturn)) void finish() {
  for (int i = 0; i < finding_count; i++)
    printf("finding\t%d\t%llu\t%s\n", findings[i].line, (unsigned long long)findings[i].count, findings[i].message);
#define PRINT(name) printf("counter\t" #name "\t%llu\n", (unsigned long long)counters.name)
  PRINT(device_bytes_read);
  PRINT(device_bytes_written);
  PRINT(constant_bytes_read);
  PRINT(threadgroup_bytes_read);
  PRINT(threadgroup_bytes_written);
  PRINT(mma_operations);
  PRINT(fma_operations);
  PRINT(barriers);
  PRINT(collectives);
  PRINT(threadgroup_memory);
#undef PRINT
  fflush(stdout);
  _exit(0);
}

// A finding after which the kernel cannot go on.
__attribute__((noreturn, format(printf, 2, 3))) void fail(int line, const char* format, ...) {
  if (finding_count == MAX_FINDINGS) finding_count--;
  va_list arguments;
  va_start(arguments, format);
  vfind(0, line, format, arguments);
  va_end(arguments);
  finish();
}

// ---- Where in the kernel's text? Known of checked kernels.

// A site: a line (its highest bit is set), or an address of the kernel's code.
typedef uint32_t Site;
const Site IS_LINE = 1u << 31;
const intptr_t ORIGIN = 1 << 30;

Site site_of(const void* address) {
  return (Site)((intptr_t)address - (intptr_t)&simulator_entry + ORIGIN) & ~IS_LINE;
}
Site site_of_line(int line) { return IS_LINE | (Site)line; }

int line_of(Site site) {
  if (site & IS_LINE) return (int)(site & ~IS_LINE);
  for (unsigned long i = 0; i < simulator_site_count; i++)
    if (site_of(simulator_sites[i].address) == site) return (int)simulator_sites[i].line;
  return 0;
}

}  // namespace
