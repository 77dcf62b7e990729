/* test_features.c - what of io_uring is used, turned off one by one, or refused by the kernel. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fixture.h"

enum { MOST = 32 };

static pp_feature features[MOST];
static size_t count;

static pp_status open_port(pp_backend_id id, pp_port **out, char *reason, int *os_error)
{
    pp_port_config config = {.backend = id,
                             .zero_copy_bytes = 1,
                             .ring_blocks = 4,
                             .registered_files = 1,
                             .registered_buffers = 1};
    return pp_port_create(&config, out, reason, os_error);
}

static pp_port *new_port_with_all(void)
{
    pp_port *port = NULL;
    int os_error;
    CHECK_EQ(open_port(PP_BACKEND_IO_URING, &port, NULL, &os_error), PP_OK);
    return port;
}

static void read_features(void)
{
    pp_port *port = new_port_with_all();
    count = pp_port_features(port, features, MOST);
    CHECK(count > 0 && count <= MOST);
    end_port(port);
}

static const pp_feature *named(pp_port *port, const char *name)
{
    static pp_feature found[MOST];
    size_t all = pp_port_features(port, found, MOST);
    for (size_t i = 0; i < all && i < MOST; i++)
        if (strcmp(found[i].name, name) == 0) return &found[i];
    return NULL;
}

static void each_is_on_or_says_what_the_kernel_said(void)
{
    read_features();
    for (size_t i = 0; i < count; i++) {
        CHECK(strncmp(features[i].environment, "POOLPORT_IO_URING_NO_", 21) == 0);
        CHECK(strlen(features[i].instead) > 0);
        CHECK(features[i].on ? strstr(features[i].why, "has it") != NULL
                             : strstr(features[i].why, features[i].name) != NULL);
    }
    pp_port *port = new_port_with_all();
    pp_feature first;
    CHECK_EQ(pp_port_features(port, &first, 1), count);
    CHECK(strcmp(first.name, features[0].name) == 0);
    pp_port_close(port, 0, NULL, 0, NULL);
    CHECK_EQ(pp_port_features(port, &first, 1), 0);
    pp_port_destroy(port);
}

static void what_nobody_asked_for_is_not_used(void)
{
    pp_port *port = new_port();
    const pp_feature *found = named(port, "zero_copy_send");
    CHECK(found && !found->on && strstr(found->why, "not asked for") != NULL);
    found = named(port, "provided_buffers");
    CHECK(found && !found->on && strstr(found->why, "not asked for") != NULL);
    found = named(port, "multishot_receive");
    CHECK(found && !found->on && strstr(found->why, "provided_buffers") != NULL);
    end_port(port);
}

static void without(const pp_feature *feature)
{
    char reason[PP_REASON_BYTES];
    pp_port *port = NULL;
    int os_error;
    bool needed = strcmp(feature->instead, "another back end") == 0;
    pp_status status = open_port(PP_BACKEND_IO_URING, &port, reason, &os_error);
    CHECK_EQ(status, needed ? PP_UNSUPPORTED : PP_OK);
    if (needed) {
        CHECK(strstr(reason, feature->environment) != NULL);
        CHECK_EQ(open_port(PP_BACKEND_AUTO, &port, NULL, &os_error), PP_OK);
        CHECK(strcmp(pp_port_backend(port), "epoll") == 0);
        CHECK(strstr(pp_port_reason(port), feature->environment) != NULL);
        CHECK_EQ(pp_port_features(port, NULL, 0), 0);
    } else {
        const pp_feature *found = named(port, feature->name);
        CHECK(found && !found->on && strstr(found->why, feature->environment) != NULL);
    }
    pp_port_destroy(port);
}

static void each_has_a_switch_that_turns_it_off_and_nothing_else(void)
{
    read_features();
    for (size_t i = 0; i < count; i++) {
        setenv(features[i].environment, "1", 1);
        without(&features[i]);
        setenv(features[i].environment, "0", 1);
    }
    pp_port *port = new_port_with_all();
    for (size_t i = 0; i < count; i++) {
        const pp_feature *found = named(port, features[i].name);
        CHECK(found && found->on == features[i].on);
        unsetenv(features[i].environment);
    }
    end_port(port);
}

/* ---- what the kernel refuses ------------------------------------------------------------ */

static bool in_a_child(bool (*judge)(int), int argument)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) _exit(judge(argument) ? 0 : 1);
    waitpid(child, &status, 0);
    return status == 0;
}

static bool refuse(long call, int error)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static bool goes_on_without_accepts(int error)
{
    pp_port *port = NULL;
    int os_error;
    if (!refuse(SYS_socket, error) || open_port(PP_BACKEND_IO_URING, &port, NULL, &os_error) != PP_OK)
        return false;
    const pp_feature *found = named(port, "multishot_accept");
    bool told = found && !found->on && strstr(found->why, strerror(error)) != NULL;
    pp_port_destroy(port);
    return told;
}

static bool goes_on_without_rings(int error)
{
    pp_port *port = NULL;
    int os_error;
    if (!refuse(SYS_io_uring_register, error) ||
        open_port(PP_BACKEND_IO_URING, &port, NULL, &os_error) != PP_OK)
        return false;
    const pp_feature *found = named(port, "provided_buffers");
    bool told = found && !found->on && strstr(found->why, strerror(error)) != NULL;
    pp_port_destroy(port);
    return told;
}

static bool is_an_error_on(int error)
{
    pp_port *port = NULL;
    int os_error = 0;
    return refuse(SYS_eventfd2, error) && open_port(PP_BACKEND_AUTO, &port, NULL, &os_error) == PP_IO &&
           os_error == error;
}

static void what_cannot_be_tried_is_not_used(void)
{
    CHECK(in_a_child(goes_on_without_accepts, EACCES));
    CHECK(in_a_child(goes_on_without_accepts, EAFNOSUPPORT));
    CHECK(in_a_child(goes_on_without_rings, EINVAL));
    CHECK(in_a_child(goes_on_without_rings, ENOMEM)); /* as where too few pages may be locked */
}

static void a_lack_of_descriptors_or_memory_says_nothing_about_the_kernel(void)
{
    CHECK(in_a_child(is_an_error_on, EMFILE));
    CHECK(in_a_child(is_an_error_on, ENOMEM));
}

static void finding_out_leaves_no_descriptor_behind(void)
{
    int before = dup(0);
    sock_close(before);
    pp_port *port = new_port_with_all();
    int during = dup(0);
    CHECK(during <= before + 3); /* the ring, its bell, and the one in reserve */
    sock_close(during);
    end_port(port);
    int after = dup(0);
    CHECK_EQ(after, before);
    sock_close(after);
}

int main(void)
{
    backend = PP_BACKEND_IO_URING;
    RUN(each_is_on_or_says_what_the_kernel_said);
    RUN(what_nobody_asked_for_is_not_used);
    RUN(each_has_a_switch_that_turns_it_off_and_nothing_else);
    RUN(what_cannot_be_tried_is_not_used);
    RUN(a_lack_of_descriptors_or_memory_says_nothing_about_the_kernel);
    RUN(finding_out_leaves_no_descriptor_behind);
    return report();
}
