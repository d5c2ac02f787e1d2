/* What is sorted (frozen). */
#include <stdint.h>

#define COUNT 400000

typedef struct {
    uint32_t key;    /* a time in seconds: of a log that several machines wrote */
    uint32_t number; /* of the line; lines of one second must stay in their order */
} record;

/* Sort by key, stably. `spare` has room for COUNT records. */
void sort_records(record *records, record *spare);
