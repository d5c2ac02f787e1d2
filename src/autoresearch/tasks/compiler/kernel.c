/* The kernel: c = a * b. Edit anything here, and the compiler's flags in kernel.flags. */
#include "kernel.h"

/* Of the loops: a product of a row and a column at a time (0), UNROLL rows of b added to a row of c
 * (1), or a row of b added to UNROLL rows of c (2). */
#define ORDER 0 /* one of: 0, 1, 2 */

#define BLOCK_ROWS 400 /* one of: 8, 16, 40, 80, 200, 400 */
#define BLOCK_INNER 400 /* one of: 8, 16, 40, 80, 200, 400 */
#define BLOCK_COLUMNS 400 /* one of: 8, 16, 40, 80, 200, 400 */
#define UNROLL 1 /* one of: 1, 2, 4, 8 */

/* One block: rows from i0, inner index from k0, columns from j0. */
static void multiply_block(const float *restrict a, const float *restrict b, float *restrict c,
                           int i0, int k0, int j0) {
    const int i1 = i0 + BLOCK_ROWS, k1 = k0 + BLOCK_INNER, j1 = j0 + BLOCK_COLUMNS;
#if ORDER == 0
    for (int i = i0; i < i1; i++)
        for (int j = j0; j < j1; j++) {
            float sum = c[i * SIZE + j];
            for (int k = k0; k < k1; k++) sum += a[i * SIZE + k] * b[k * SIZE + j];
            c[i * SIZE + j] = sum;
        }
#elif ORDER == 1
    for (int i = i0; i < i1; i++)
        for (int k = k0; k < k1; k += UNROLL)
            for (int j = j0; j < j1; j++) {
                float sum = c[i * SIZE + j];
                for (int u = 0; u < UNROLL; u++) sum += a[i * SIZE + k + u] * b[(k + u) * SIZE + j];
                c[i * SIZE + j] = sum;
            }
#else
    for (int i = i0; i < i1; i += UNROLL)
        for (int k = k0; k < k1; k++)
            for (int u = 0; u < UNROLL; u++)
                for (int j = j0; j < j1; j++)
                    c[(i + u) * SIZE + j] += a[(i + u) * SIZE + k] * b[k * SIZE + j];
#endif
}

void multiply(const float *a, const float *b, float *c) {
    for (int i = 0; i < SIZE; i += BLOCK_ROWS)
        for (int k = 0; k < SIZE; k += BLOCK_INNER)
            for (int j = 0; j < SIZE; j += BLOCK_COLUMNS) multiply_block(a, b, c, i, k, j);
}
