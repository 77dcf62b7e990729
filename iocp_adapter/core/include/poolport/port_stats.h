/* poolport/port_stats.h - what a port counts: one list, from which the struct, the Python class and the documentation
 * come. */
#ifndef POOLPORT_PORT_STATS_H
#define POOLPORT_PORT_STATS_H

#include <poolport/endpoint.h>

/*   X(name, kind, unit, meaning)     kind: counter (only rises) or gauge
 * submitted = completed + outstanding, at all times. */
#define PP_PORT_STATS_LIST(X)                                                                                \
    X(submitted, counter, operations, "operations accepted by the port")                                     \
    X(completed, counter, operations, "operations that ended, well or not")                                  \
    X(outstanding, gauge, operations, "operations not ended yet")                                            \
    X(receiving, gauge, operations, "receives among them, of streams and of datagrams")                      \
    X(sending, gauge, operations, "sends, of messages, datagrams and files")                                 \
    X(accepting, gauge, operations, "accepts")                                                               \
    X(connecting, gauge, operations, "connects")                                                             \
    X(disconnecting, gauge, operations, "disconnects")                                                       \
    X(reading_files, gauge, operations, "reads of files")                                                    \
    X(writing_files, gauge, operations, "writes to files")                                                   \
    X(timing, gauge, operations, "timers of the program")                                                    \
    X(watching, gauge, operations, "waits for descriptors of others")                                        \
    X(queued_completions, gauge, completions, "rows that wait for somebody to dequeue them")                 \
    X(peak_operations, gauge, slots, "the most operation slots ever in use")                                 \
    X(endpoints, gauge, endpoints, "descriptors associated now")                                             \
    X(tcp_endpoints, gauge, endpoints, "TCP connections among them")                                         \
    X(udp_endpoints, gauge, endpoints, "UDP sockets")                                                        \
    X(unix_endpoints, gauge, endpoints, "Unix sockets")                                                      \
    X(listeners, gauge, endpoints, "sockets and pipes that accept")                                          \
    X(pipes, gauge, endpoints, "named pipes")                                                                \
    X(files, gauge, endpoints, "files")                                                                      \
    X(other_endpoints, gauge, endpoints, "anything else")                                                    \
    X(associated, counter, endpoints, "descriptors ever associated")                                         \
    X(dequeued, counter, completions, "rows handed out")                                                     \
    X(batches, counter, batches, "dequeues that handed out at least one row")                                \
    X(batches_of_1, counter, batches, "those of one row")                                                    \
    X(batches_to_3, counter, batches, "those of 2 or 3 rows")                                                \
    X(batches_to_7, counter, batches, "those of 4 to 7 rows")                                                \
    X(batches_to_15, counter, batches, "those of 8 to 15 rows")                                              \
    X(batches_to_31, counter, batches, "those of 16 to 31 rows")                                             \
    X(batches_to_63, counter, batches, "those of 32 to 63 rows")                                             \
    X(batches_from_64, counter, batches, "those of 64 rows and more")                                        \
    X(waits, counter, calls, "times a thread waited in the kernel")                                          \
    X(wakeups, counter, calls, "times a waiting thread was woken by another one")                            \
    X(receives, counter, completions, "receives that gave data")                                             \
    X(received_bytes, counter, bytes, "bytes received")                                                      \
    X(empty_receives, counter, calls, "receive attempts that found nothing")                                 \
    X(sends, counter, operations, "sends completed in full")                                                 \
    X(sent_bytes, counter, bytes, "bytes handed to the kernel")                                              \
    X(partial_sends, counter, calls, "send calls that left a part of a message behind")                      \
    X(gathered_sends, counter, operations, "sends that left together with another one in one call")          \
    X(zero_copy_sends, counter, calls, "send calls that let the network read the memory itself")             \
    X(zero_copy_copied, counter, calls, "those among them that the kernel copied all the same")              \
    X(queued_bytes, gauge, bytes, "bytes waiting to be sent")                                                \
    X(queued_sends, gauge, operations, "sends waiting to be sent, or to be finished")                        \
    X(accepted, counter, connections, "connections accepted")                                                \
    X(refused, counter, connections, "connections closed at once: no descriptor was left")                   \
    X(connects, counter, connections, "connections made")                                                    \
    X(posted, counter, packets, "packets posted")                                                            \
    X(cancels, counter, calls, "operations asked to be cancelled")                                           \
    X(late_completions, counter, events, "kernel events for an owner that had gone: ignored")                \
    X(rearmed, counter, operations, "armed operations that the kernel ended and that were armed again")      \
    X(buffer_waits, counter, endpoints, "times an endpoint waited because the provider had no block")        \
    X(starved, gauge, endpoints, "endpoints waiting for a block now")                                        \
    X(buffer_polls, counter, calls, "sleeps that a timer ended to ask providers who do not tell")            \
    X(pauses, counter, endpoints, "times a peer that did not read stopped being read from")                  \
    X(port_pauses, counter, endpoints, "times that was, or would have been, for the sake of the whole port") \
    X(timeouts, counter, endpoints, "endpoints reset because they were silent for too long")                 \
    X(truncated, counter, datagrams, "datagrams that were longer than their buffer")                         \
    X(unreachable, counter, datagrams, "datagrams of ours that found nobody; receiving went on")             \
    X(file_reads, counter, operations, "reads of files that gave data, or the end")                          \
    X(file_writes, counter, operations, "writes to files that took data")                                    \
    X(disconnects, counter, connections, "connections ended by a disconnect")                                \
    X(reused_sockets, counter, sockets, "accepts begun with the socket of a disconnected connection")        \
    X(file_sends, counter, operations, "parts of files sent in full")                                        \
    X(foreign_ready, counter, operations, "waits for descriptors of others that found them ready")           \
    X(grown, counter, regions, "times that tables of operations grew: more were under way than ever before") \
    X(ring_blocks, gauge, blocks, "blocks in rings that the kernel has not put data into")                   \
    X(ring_receives, counter, completions, "receives that the kernel made into a ring's block by itself")    \
    X(ring_misses, counter, endpoints, "times data came and its ring had no block")                          \
    X(ring_bundles, counter, completions, "times the kernel told of several blocks of a ring at once")       \
    X(registered_bytes, gauge, bytes, "memory of providers that is registered with the kernel")              \
    X(registered_transfers, counter, operations, "reads, writes and sends from or into such memory")         \
    X(registered_files, gauge, handles, "endpoints that the kernel knows by a place of their own")

enum { PP_PORT_STATS_VERSION = 1 };

typedef struct pp_port_stats {
    uint32_t size;
    uint32_t version; /* PP_PORT_STATS_VERSION */
#define PP_PORT_STATS_FIELD(name, kind, unit, meaning) uint64_t name;
    PP_PORT_STATS_LIST(PP_PORT_STATS_FIELD)
#undef PP_PORT_STATS_FIELD
} pp_port_stats;

typedef struct pp_port_stats_entry {
    const char *name;
    const char *kind;
    const char *unit;
    const char *meaning;
} pp_port_stats_entry;

PP_BEGIN_DECLS

void pp_port_read_stats(pp_port *port, pp_port_stats *out);

/* Entry `index` of PP_PORT_STATS_LIST; NULL past the end. */
const pp_port_stats_entry *pp_port_stats_describe(size_t index);

PP_END_DECLS

#endif
