/* Weights in the order in which kernels read them. */
typedef struct {
    const float *weight; /* [groups * group_outputs][kernel_taps][channels] */
    float *packed;       /* [phase][group][block][tap of the phase][channels][block_width] */
    const int *taps;     /* where each tap of each phase lies in the kernel */
    const int *phase_taps;
    int phases, kernel_taps, channels, groups, group_outputs, block_width;
    int last_width; /* of the last block of a group, which may be narrower; its missing outputs are zeros */
} cj_packing;

enum { TRANSPOSED_AT_ONCE = 16 };

/* One tap of one block: transposes [outputs][channels] to [channels][width]. */
static void pack_tap(const cj_packing *p, const float *from, float *to, int outputs, int width)
{
    long output_step = (long)p->kernel_taps * p->channels;
    if (outputs < width)
        memset(to, 0, sizeof(float) * p->channels * width);
    for (int first = 0; first < p->channels; first += TRANSPOSED_AT_ONCE) {
        int count = p->channels - first < TRANSPOSED_AT_ONCE ? p->channels - first : TRANSPOSED_AT_ONCE;
        for (int o = 0; o < outputs; o++)
            for (int c = first; c < first + count; c++)
                to[(long)c * width + o] = from[o * output_step + c];
    }
}

/* Items are the taps of all blocks, in the order of the packed weight. */
static void pack_items(const void *argument, int thread, long first, long end)
{
    const cj_packing *p = argument;
    (void)thread;
    long item = 0;
    float *to = p->packed;
    const int *taps = p->taps;
    for (int phase = 0; phase < p->phases; taps += p->phase_taps[phase++])
        for (int group = 0; group < p->groups; group++)
            for (int o = 0; o < p->group_outputs; o += p->block_width) {
                int left = p->group_outputs - o, last = left <= p->block_width;
                int width = last ? p->last_width : p->block_width;
                const float *from = p->weight + ((long)group * p->group_outputs + o) * p->kernel_taps * p->channels;
                for (int tap = 0; tap < p->phase_taps[phase]; tap++, item++, to += (long)p->channels * width)
                    if (first <= item && item < end)
                        pack_tap(p, from + (long)taps[tap] * p->channels, to, last ? left : width, width);
            }
}

void cj_pack(const cj_packing *p, int threads)
{
    const long blocks = (p->group_outputs + p->block_width - 1) / p->block_width;
    long items = 0;
    for (int phase = 0; phase < p->phases; phase++)
        items += p->groups * blocks * p->phase_taps[phase];
    const int granted = enter_pool(threads);
    run_units(pack_items, p, items, granted);
    leave_pool(granted);
}
