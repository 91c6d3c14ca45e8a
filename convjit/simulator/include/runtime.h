// What a kernel asks of the runtime, and what the runtime tells a thread about itself.
#pragma once

// Named as the attributes of Metal, so that an argument `uint3 n [[attribute]]` is `position(where->attribute)`.
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

extern "C" {
// The kernel: one call is one thread. Written by the simulator behind the kernel's text.
void simulator_entry(void* const* buffers, const simulator_thread* where);

// Returns when all threads of the threadgroup have called it. `line` is where, for messages.
void simulator_barrier(int line);

// Returns when all lanes of the simdgroup have called it; the last to come runs `work` (if any) on what each brought.
void simulator_collective(void* mine, void (*work)(void* const* data, int lanes), int line, const char* name);

// The storage of the threadgroup variable with this number: the same for all threads of a threadgroup.
void* simulator_threadgroup_memory(int number, __SIZE_TYPE__ bytes);

// The calling thread's index in its simdgroup.
int simulator_lane();
}
