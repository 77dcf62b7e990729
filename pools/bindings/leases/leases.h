/* leases.h - leases, batches and exported views as Python types of their own.
 *
 * `with pool.acquire() as lease` is compared with one `bytearray(4096)`. Two calls through cffi
 * cost more than that alone, so this path is written against the interpreter itself:
 *
 *     Lender   base class of pools.Pool: acquire, acquire_many, release_many, lease
 *     Lease    one block; its memory is kept for the next lease when it is collected (lease.c)
 *     Batch    the blocks of one acquire_many, as the core wrote them down (batch.c)
 *     Export   what memoryviews of a block are made over (export.c)
 *     Pin      what lease.pin() gives (pin.c)
 *     Home     the C pool, for as long as anything points into it (export.c)
 *
 * Where it lives. These types call the core directly, and the core has state of its own, such as
 * the pool ids given so far. A second copy in a second library would give every id twice, so the
 * types are linked into the library that cffi's module is in: it has two entry points, PyInit__pools
 * and PyInit__leases, and pools/_native.py loads it under both names. All of it keeps to the limited
 * API of Python 3.11, so one binary serves every later version.
 *
 * What is looked at is not reused. Every memoryview of a block, and whatever is made from one, holds
 * a reference to the lease's Export, and nothing else does. A lease that is released while there are
 * any leaves the release to the Export, which does it when the last of them is gone - in whatever
 * thread that happens, since any thread may release (but only the owner pin, and only before the pool
 * is closed, so a pin would not do). Nobody counts anything: the interpreter does.
 *
 * What keeps memory mapped. Leases refer to their pool object; Exports only to the Home, so that a
 * view in a cycle with its pool is no cycle at all, and neither Home nor Export has to be known to
 * the collector.
 *
 * Reentrancy. Any allocation of an object may run the collector, and any decref a finalizer, a weak
 * reference's callback: Python code that uses the same pool, or the same lease. So a block is
 * acquired when the object that is to carry it exists, and what ends a lease takes its handle out
 * first: whoever comes in between finds a lease that has ended.
 *
 * Threads. Fields are guarded by the interpreter's lock. The core's calls end within nanoseconds and
 * are made with the lock held, except for pools that may wait for another thread or call back
 * (pp_pool_may_wait()): those give it up meanwhile.
 *
 * A free-threaded interpreter has no such lock, and gets a build of its own, in which each way in
 * from Python enters a critical section of the Home (GUARD_BEGIN): it guards the Home, and every
 * Lease, Batch, Export and Pin of that pool. What must hold is the same, since a section is given up
 * at no other points than the interpreter's lock is: where the thread waits, or gives up the lock.
 * Leases of pools that threads have to themselves never wait for each other. Nothing is kept for the
 * next lease there, for what is kept would be everybody's. Who drops the last reference, another
 * thread than the one that made the object, leaves its end to that one (so are the interpreter's
 * counts): what was looked at in one thread and is dropped in another comes back to the pool when the
 * first next runs Python code. And a fork may find a Home's lock handed to a thread that has not woken
 * up to take it: the child, which has no such thread, opens those locks (homes_forked()). */
#ifndef POOLPORT_LEASES_H
#define POOLPORT_LEASES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <poolport/poolport.h>
#include <structmember.h>

typedef struct Export Export;

/* A pin that is to be taken away, by the owner's next call if not at once. */
typedef struct pin_note {
    struct pin_note *next;
    pp_handle handle;
    pp_pin_kind kind;
} pin_note;

typedef struct Home {
    PyObject_HEAD PyObject *keep; /* destroys the C pool when it goes */
    pp_pool *pool;
    pin_note *dropped; /* pins that ended where they could not be taken away */
    Export *owing;     /* exports that have yet to release their block */
    bool may_wait;
#ifdef Py_GIL_DISABLED
    struct Home *older, *newer; /* of all there are */
#endif
} Home;

typedef enum export_debt { EXPORT_OWES_NOTHING, EXPORT_OWES_RELEASE, EXPORT_OWES_UNPIN } export_debt;

struct Export {
    PyObject_HEAD Home *home;
    void *data;
    Py_ssize_t size;
    pp_handle handle; /* this and what follows: of the debt */
    export_debt debt;
    pin_note *note;
    Export *next, **link; /* in home->owing */
};

/* A line of Python that acquires, and its number in the pool's table. */
typedef struct known_site {
    PyObject *code;
    int instruction;
    unsigned int number;
} known_site;

enum { KNOWN_SITES = 8 };

typedef struct Lender {
    PyObject_HEAD Home *home;
    PyTypeObject *lease_type;
    PyObject *tags; /* dict of text to number */
    size_t default_size, max_bytes;
    char waits; /* requests wait for a release */
    unsigned long long lost_leases;
    char records_sites; /* blocks carry the line that acquired them */
    char told;          /* closed, and what was live then was warned of: its end is no news */
    known_site sites[KNOWN_SITES];
} Lender;

typedef PyObject *(*call_function)(PyObject *, PyObject *const *, size_t, PyObject *);

typedef struct Lease {
    PyObject_HEAD call_function call;
    pp_handle handle; /* 0 once released or detached */
    void *data;       /* NULL where a block has no address until it is pinned */
    Py_ssize_t size;
    Lender *pool;
    PyObject *code; /* with instruction: where it was acquired; NULL for the engine */
    int instruction;
    bool finalized, detached;
    PyObject *view; /* with lent: made when first asked for */
    Export *lent;
    struct Batch *batch; /* whose block it is, and which refers to the lease; NULL: the lease's own */
    Py_ssize_t place;    /* in there */
} Lease;

typedef struct Batch {
    PyObject_HEAD Lender *pool;
    PyObject *code;
    int instruction;
    pp_block *blocks; /* handle 0: it has left the batch */
    Lease **leases;   /* of its blocks, each made when first asked for; NULL: of none yet */
    Py_ssize_t count; /* 0 once released */
    Py_ssize_t taken; /* have left */
    bool finalized;
} Batch;

/* How many collected leases are kept for the next ones. 0 lets AddressSanitizer see one that is used
 * after its end. */
#if defined(Py_GIL_DISABLED)
#undef PP_LEASES_KEPT
#define PP_LEASES_KEPT 0
#elif !defined(PP_LEASES_KEPT)
#define PP_LEASES_KEPT 128
#endif

/* Around what is done with a pool's leases; not to be left by return. */
#ifdef Py_GIL_DISABLED
extern _Thread_local int guards_entered;
#define GUARD_BEGIN(object)                                                                                  \
    Py_BEGIN_CRITICAL_SECTION(object);                                                                       \
    guards_entered++
#define GUARD_END()                                                                                          \
    guards_entered--;                                                                                        \
    Py_END_CRITICAL_SECTION()
#else
#define GUARD_BEGIN(object) {
#define GUARD_END() }
#endif

/* A way in from Python: returns `call`, made within the section. */
#define GUARDED(type, object, call)                                                                          \
    do {                                                                                                     \
        type result_;                                                                                        \
        GUARD_BEGIN(object);                                                                                 \
        result_ = call;                                                                                      \
        GUARD_END();                                                                                         \
        return result_;                                                                                      \
    } while (0)

/* As in the limited API since 3.12, and in what precedes it. */
#ifndef Py_TPFLAGS_HAVE_VECTORCALL
#define Py_TPFLAGS_HAVE_VECTORCALL (1UL << 11)
#endif

extern PyTypeObject *home_type, *export_type, *lender_type, *lease_type, *batch_type, *batch_iterator_type,
    *pin_type;

/* Creates the types of one file and adds the public ones to the module; -1 with an exception. */
int home_and_export_types(PyObject *module);
int lender_types(PyObject *module);

/* The number of a tag that a caller gave, a text or a number (NULL: none); or -1 with an exception. */
int lender_read_tag(Lender *self, PyObject *tag, uint32_t *out);
int lease_types(PyObject *module);
int batch_types(PyObject *module);
int pin_types(PyObject *module);

/* ---- home and export (export.c) -------------------------------------------------------- */

Home *home_new(pp_pool *pool, PyObject *keep);

/* pp_pool_release() and pp_pool_pin(), giving up the interpreter's lock where the pool may wait. */
pp_status home_release(Home *self, pp_handle handle);
pp_status home_pin(Home *self, pp_handle handle, pp_pin_kind kind, void **data);

/* Takes the pin away, or leaves it to the owner's next call where this thread or moment may not. The note
 * is this function's from now on; home_pin_note() gives one beforehand, so that this cannot fail. */
void home_unpin(Home *self, pin_note *note);
pin_note *home_pin_note(pp_handle handle, pp_pin_kind kind);

#ifdef Py_GIL_DISABLED
/* In the child of a fork: opens the locks that threads held which it does not have. A child of code that
 * was inside a section itself keeps them all as they are. */
PyObject *homes_forked(PyObject *module, PyObject *unused);
#endif

/* Takes away the pins that were left. Owner. */
void home_sweep(Home *self);

/* Bytes to make memoryviews over. */
Export *export_new(Home *home, void *data, Py_ssize_t size);

/* Whether others than the caller, who has one reference, look at it. True also where only the thread that
 * made it can tell. */
static inline bool export_shared(Export *self)
{
#ifdef Py_GIL_DISABLED
    return !PyUnstable_Object_IsUniquelyReferenced((PyObject *)self);
#else
    return Py_REFCNT((PyObject *)self) > 1;
#endif
}

/* Who drops the last reference releases the block. */
void export_owe_release(Export *self, pp_handle handle);

/* Who drops the last reference takes the pin away. */
void export_owe_unpin(Export *self, pin_note *note);

/* ---- lease (lease.c) ---------------------------------------------------------------------- */

/* A lease of no block yet, unknown to the collector if it is of the base type. */
Lease *lease_prepare(Lender *pool);

/* It owns the block from now on; takes over the reference to `code`. */
void lease_fill(Lease *self, const pp_block *block, PyObject *code, int instruction);

/* The lease's part in what is looked at ends. Gives the export, a reference, if others have a part. */
Export *lease_stop_looking(Lease *self);

/* The handle, or 0 and StaleHandle, counted as such. */
pp_handle lease_live(Lease *self, const char *what);

/* Whether anybody but the caller, who has one reference, refers to it. On a free-threaded interpreter also true
 * where only the thread that made it could tell. */
static inline bool lease_shared(PyObject *lease)
{
#ifdef Py_GIL_DISABLED
    return !PyUnstable_Object_IsUniquelyReferenced(lease);
#else
    return Py_REFCNT(lease) > 1;
#endif
}

/* The cached memoryview, a new reference. */
PyObject *lease_view(PyObject *self, void *unused);

/* What guards the lease: its pool's home, or itself where it never was of any block. */
static inline PyObject *lease_guard(PyObject *op)
{
    Lease *self = (Lease *)op;
    return self->pool ? (PyObject *)self->pool->home : op;
}

/* Exports the block: what is made over it refers to the lease's Export, not to the lease. */
int lease_buffer(PyObject *self, Py_buffer *out, int flags);

/* What lease_calls.h promises. */
pp_handle lease_handle_of(PyObject *op);
Py_ssize_t lease_length(PyObject *op);
pp_handle lease_take_out(PyObject *op);
PyObject *lease_release(PyObject *op, PyObject *unused);
int add_lease_calls(PyObject *module);

/* Methods of the type (lease_bytes.c); their contracts are in pools/_leases.pyi. */
PyObject *lease_read(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *lease_write(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *lease_resize(PyObject *self, PyObject *size);

/* Where the caller is: a new reference to its code object, NULL if no Python code calls. Runs no Python
 * code, but the collector may. 0, or -1 with an exception. */
int current_site(PyObject **code, int *instruction);

/* ---- batch and pin ------------------------------------------------------------------------ */

/* Gives every block back that the batch still owns; None, or NULL with an exception. */
PyObject *batch_release(Batch *self);

/* A batch with room for so many blocks, none yet, and unknown to the collector. */
Batch *batch_prepare(Lender *pool, Py_ssize_t count);

/* It owns the blocks written there from now on. */
void batch_fill(Batch *self, Py_ssize_t count);

/* The block of a lease that has a batch leaves that: it is the lease's own. The caller has a reference. */
void batch_let_go(Lease *lease);

PyObject *pin_new(PyObject *lease, PyObject *unused);

/* ---- what is left to Python (module.c) -------------------------------------------------------- */

/* Counts the refusal in the pool's statistics, and raises as raise_because() does. */
PyObject *refuse_counted(pp_status status, Lender *pool, const char *why, const char *remedy,
                         const char *format, ...);

/* Raises what pools.errors.error_for() gives for the status. What happened is told as `format` and then
 * " pool <name>"; `remedy` is NULL for the usual one. Always NULL. */
PyObject *raise_status(pp_status status, Lender *pool, const char *remedy, const char *format, ...);

/* The same where `why` tells more than the status's own sentence. */
PyObject *raise_because(pp_status status, Lender *pool, const char *why, const char *remedy,
                        const char *format, ...);

/* Raises `error`, a type of Python's own: what happened as above, ": " and `remedy`. Always NULL. */
PyObject *raise_plain(PyObject *error, Lender *pool, const char *remedy, const char *format, ...);

/* For a `value` that was to be a number from `low` to `high` and could not be read as one, with the exception set
 * that says so: raises TypeError or PoolValueError in its place, but what code of the value's own raised stays. `of`
 * says whose it was, up to " pool <name>". Always NULL. */
PyObject *refuse_number(Lender *pool, const char *name, PyObject *value, const char *of, Py_ssize_t low,
                        unsigned long long high);

/* Raises an exception that Python code made, whose reference it takes; NULL for none, and one set. Always NULL. */
PyObject *raise_made(PyObject *error);

/* pools.lease.site_text(). */
PyObject *site_text(PyObject *code, int instruction);

/* Warns that a lease (`count` 0) or a batch of so many blocks was lost; errors go to the unraisable hook.
 * Keeps the exception that is set. */
void warn_lost(Lender *pool, PyObject *code, int instruction, Py_ssize_t count);

/* Whether the interpreter is ending: nothing can be warned of or released then. */
bool interpreter_ends(void);

#endif
