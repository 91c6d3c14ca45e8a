// What a kernel asks of the runtime, and what the runtime tells a thread about itself.
#pragma once

// Named as the attributes of Metal, so that an argument `uint3 n [[attribute]]` is `position<uint3>(where->attribute)`.
struct simulator_thread {
  unsigned thread_position_in_grid[3], thread_position_in_threadgroup[3], threadgroup_position_in_grid[3];
  unsigned threads_per_grid[3], grid_size[3], grid_origin[3], threadgroups_per_grid[3];
  unsigned threads_per_threadgroup[3], dispatch_threads_per_threadgroup[3];
  unsigned thread_index_in_threadgroup;
  unsigned thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
  unsigned simdgroups_per_threadgroup, dispatch_simdgroups_per_threadgroup;
  unsigned threads_per_simdgroup, thread_execution_width;
  unsigned thread_index_in_quadgroup, quadgroup_index_in_threadgroup;
  unsigned quadgroups_per_threadgroup, dispatch_quadgroups_per_threadgroup;
};

// One call in a checked kernel that reports an access, and the line of the kernel's text that it belongs to.
struct simulator_site {
  const void* address;
  unsigned long line;
};

// In checked builds the compiler reports each access to memory (-fsanitize=thread). UNOBSERVED functions are not
// reported on, and their `line` is the kernel's: they tell the runtime themselves.
#if SIMULATOR_CHECKED
#define UNOBSERVED __attribute__((noinline, no_sanitize("thread"), no_sanitize("undefined")))
#else
#define UNOBSERVED inline __attribute__((always_inline))
#endif

extern "C" {
// The kernel: one call is one thread. Written by the simulator behind the kernel's text.
void simulator_entry(void* const* buffers, const simulator_thread* where);
extern const simulator_site simulator_sites[];
extern const unsigned long simulator_site_count;

// Returns when all threads of the threadgroup have called it. `flags` are Metal's mem_flags, `line` is the kernel's.
void simulator_barrier(int flags, int line);
void simulator_simdgroup_barrier(int flags, int line);

// Returns when all lanes of the simdgroup have called it; the last to come runs `work` on what each brought.
void simulator_collective(void* mine, void (*work)(void* const* data, int lanes), int line, const char* name);

// A collective was given different numbers by the lanes of a simdgroup, as a distance, where one is wanted.
void simulator_uneven(int line, const char* name);

// The storage of the threadgroup variable with this number: the same for all threads of a threadgroup.
void* simulator_threadgroup_memory(int number, __SIZE_TYPE__ bytes, __SIZE_TYPE__ element_bytes, const char* name);

// The calling thread's index in its simdgroup, and in its threadgroup.
int simulator_lane();
int simulator_thread_index();

#if SIMULATOR_CHECKED
enum { SIMULATOR_READ = 1, SIMULATOR_WRITE = 2, SIMULATOR_ATOMIC = 4 };
// Says what an UNOBSERVED function is about to access.
void simulator_access(const volatile void* at, __SIZE_TYPE__ bytes, int kind, int line);
// An operation of a whole simdgroup for which its lanes need not wait: all must come by in the same order.
void simulator_pass(int line, const char* name);
// `lanes` scalar fused multiply-adds.
void simulator_count_fma(int lanes);
#else
#define simulator_access(at, bytes, kind, line) ((void)0)
#define simulator_pass(line, name) ((void)0)
#define simulator_count_fma(lanes) ((void)0)
#endif
}
