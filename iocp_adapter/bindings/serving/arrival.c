/* arrival.c - connections that come and go.
 *
 * A server of short connections does little else, and a line of Python that runs seldom finds nothing of
 * itself in the caches: opening and closing a connection took 50 us of a processor in Python, where the
 * kernel takes 75. So Python is entered where the program has something to say (a label, connected(),
 * disconnected()), and for whatever goes wrong.
 *
 * What must hold: a descriptor is the row's until pp_port_associate() has taken it; before that, whoever fails
 * hands it to Serving._not_welcome(), which closes it. From then on it is the endpoint's, and a failure ends
 * the endpoint. The row of an endpoint's end comes in every case, also where no Connection was made for it. */
#include <stdio.h>

#include "serving.h"

enum { PEER_BYTES = 64, LABEL_BYTES = 128, LISTENER_KEY = 0 };

/* ---- one that comes ---------------------------------------------------------------------------- */

/* A label of its own for each of the first connections; later ones share one with their neighbours. A pool keeps
 * the text of every tag that a block ever had (debug histories, traces and leak reports refer to it), so that
 * a label for each connection would grow for as long as the server runs. */
static PyObject *label_of(unsigned long long number, const char *peer)
{
    char text[LABEL_BYTES];
    unsigned long long first = number - (number - 1) % OWN_LABELS;
    if (number <= OWN_LABELS)
        snprintf(text, sizeof text, "conn-%llu %s", number, peer);
    else
        snprintf(text, sizeof text, "conn-%llu to conn-%llu", first, first + OWN_LABELS - 1);
    return PyUnicode_FromString(text);
}

/* The exception that is set is told with the connection that it costs; -1 where it is none of a handler's. */
static int turn_away(Exchange *self, int64_t descriptor, unsigned long long number, PyObject *peer,
                     bool for_its_label)
{
    PyObject *error = take_exception();
    if (!error) return -1;
    PyObject *told = PyObject_CallMethod((PyObject *)self, "_not_welcome", "LKOOO", (long long)descriptor,
                                         number, peer, error, for_its_label ? Py_True : Py_False);
    Py_DECREF(error);
    return done(told);
}

/* The program's own, or ours; NULL with an exception. */
static PyObject *read_label(Exchange *self, unsigned long long number, const char *text, PyObject *peer)
{
    if (self->label == Py_None) return label_of(number, text);
    PyObject *label = PyObject_CallFunction(self->label, "KO", number, peer);
    if (!label || PyUnicode_Check(label)) return label;
    done(PyObject_CallMethod((PyObject *)self, "_refuse_label", "KOO", number, peer, label));
    Py_DECREF(label);
    return NULL;
}

/* The endpoint; 0 with an exception, and the descriptor is still the caller's. */
static pp_endpoint admit(Exchange *self, int64_t descriptor, unsigned long long number, uint32_t tag)
{
    pp_endpoint endpoint = 0;
    pp_endpoint_config config = self->admission;
    config.descriptor = descriptor;
    config.key = number;
    config.tag = tag;
    config.flags |= self->flags;
    pp_status status = pp_port_associate(self->port, &config, &endpoint);
    if (!status) return endpoint;
    done(PyObject_CallMethod((PyObject *)self, "_refuse_descriptor", "Li", (long long)descriptor,
                             (int)status));
    return 0;
}

static int begin(Exchange *self, unsigned long long number, pp_endpoint endpoint, PyObject *peer,
                 PyObject *label)
{
    pp_status status = pp_port_recv_stream(self->port, endpoint, endpoint, NULL);
    if (status) {
        pp_port_end(self->port, endpoint, PP_CLOSE_RESET);
        if (done(PyObject_CallMethod((PyObject *)self, "_deaf", "Ki", number, (int)status)) < 0) return -1;
    }
    PyObject *key = PyLong_FromUnsignedLongLong(number);
    PyObject *made = sender_make(self->connection_type, self, number, endpoint, peer, label);
    int outcome = key && made ? PyDict_SetItem(self->connections, key, made) : -1;
    Py_XDECREF(key);
    if (outcome < 0)
        pp_port_end(self->port, endpoint, PP_CLOSE_RESET);
    else if (self->connected != Py_None) {
        PyObject *told = PyObject_CallFunctionObjArgs(self->connected, made, NULL);
        outcome = told ? 0 : tell_failure(self, (Sender *)made, "connected");
        Py_XDECREF(told);
    }
    Py_XDECREF(made);
    return outcome;
}

int exchange_welcome(Exchange *self, int64_t descriptor, unsigned long long number)
{
    char text[PEER_BYTES];
    uint32_t tag = 0;
    if (self->refuse || !self->connections)
        return done(PyObject_CallMethod((PyObject *)self, "_drop", "L", (long long)descriptor));
    bump(&self->accepted);
    PyObject *peer =
        PyUnicode_FromStringAndSize(text, (Py_ssize_t)pp_socket_peer(descriptor, text, sizeof text));
    if (!peer) return turn_away(self, descriptor, number, Py_None, false);
    PyObject *label = read_label(self, number, text, peer);
    bool labelled = label != NULL;
    pp_endpoint endpoint = 0;
    if (labelled && (PyUnicode_GetLength(label) == 0 || lease_calls->tag(self->pool, label, &tag) == 0))
        endpoint = admit(self, descriptor, number, tag);
    int outcome = endpoint ? begin(self, number, endpoint, peer, label)
                           : turn_away(self, descriptor, number, peer, !labelled);
    Py_XDECREF(label);
    Py_DECREF(peer);
    return outcome;
}

int exchange_accept(Exchange *self, int64_t descriptor)
{
    if (self->gated)
        return done(PyObject_CallMethod((PyObject *)self, "_accepted", "L", (long long)descriptor));
    return exchange_welcome(self, descriptor, ++self->last_number);
}

/* ---- one that goes ------------------------------------------------------------------------------- */

/* Takes it out of the open ones. A new reference; NULL where there is none, or with an exception. */
static Sender *take_out(Exchange *self, uint64_t key)
{
    PyObject *number = self->connections ? PyLong_FromUnsignedLongLong(key) : NULL;
    PyObject *found = number ? PyDict_GetItemWithError(self->connections, number) : NULL;
    Py_XINCREF(found);
    if (found && (!PyObject_TypeCheck(found, sender_type) || PyDict_DelItem(self->connections, number) < 0))
        Py_CLEAR(found);
    Py_XDECREF(number);
    return (Sender *)found;
}

int exchange_depart(Exchange *self, uint64_t key, uint32_t error)
{
    if (key == LISTENER_KEY) return done(PyObject_CallMethod((PyObject *)self, "_listener_ended", NULL));
    Sender *connection = take_out(self, key);
    if (!connection) return PyErr_Occurred() ? -1 : 0;
    int outcome = 0;
    connection->closed = 1;
    bump(&self->ended);
    if (error || self->disconnected != Py_None || (self->raised && PyDict_Size(self->raised)))
        outcome = done(PyObject_CallMethod((PyObject *)self, "_departed", "OI", connection, error));
    Py_DECREF((PyObject *)connection);
    return outcome;
}
