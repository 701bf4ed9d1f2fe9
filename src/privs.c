/* SPDX-License-Identifier: MIT */
#include "privs.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Who to become. */
struct identity {
    uid_t uid;
    gid_t gid;
    const char *name; /* for its supplementary groups; NULL: they stay as they are */
};

/* (uid_t)-1 and (gid_t)-1 mean `no change' to setresuid(2). */
static bool
parse_id(const char *text, uint32_t *id)
{
    size_t n = strlen(text);
    unsigned long long value;

    if (n == 0 || n > 10 || strspn(text, "0123456789") != n)
        return false;
    value = strtoull(text, NULL, 10);
    *id = (uint32_t)value;
    return value < UINT32_MAX;
}

int
privs_find_user(const char *name, uid_t *uid, gid_t *gid)
{
    struct passwd *pw = getpwnam(name);
    uint32_t id;

    if (pw == NULL && parse_id(name, &id)) {
        pw = getpwuid(id);
        *uid = id;
        *gid = id;
        if (pw == NULL)
            return 0;
    }
    if (pw == NULL)
        return -1;
    *uid = pw->pw_uid;
    *gid = pw->pw_gid;
    return 0;
}

int
privs_find_group(const char *name, gid_t *gid)
{
    struct group *gr = getgrnam(name);
    uint32_t id;

    if (gr != NULL)
        *gid = gr->gr_gid;
    else if (parse_id(name, &id))
        *gid = id;
    else
        return -1;
    return 0;
}

static int
fail(const char **why, const char *step)
{
    *why = step;
    return -1;
}

static int
find_identity(struct identity *who, const char *user, const char *group, const char **why)
{
    *who = (struct identity){.uid = geteuid(), .gid = getegid(), .name = NULL};
    if (user != NULL && privs_find_user(user, &who->uid, &who->gid) < 0) {
        errno = ENOENT;
        return fail(why, "no such user");
    }
    if (group != NULL && privs_find_group(group, &who->gid) < 0) {
        errno = ENOENT;
        return fail(why, "no such group");
    }
    who->name = user;
    return 0;
}

/* An unprivileged process may well be told to become who it is. */
static bool
is_already(const struct identity *who)
{
    uid_t ruid, euid, suid;
    gid_t rgid, egid, sgid;

    if (getresuid(&ruid, &euid, &suid) < 0 || getresgid(&rgid, &egid, &sgid) < 0)
        return false;
    return ruid == who->uid && euid == who->uid && suid == who->uid && rgid == who->gid &&
           egid == who->gid && sgid == who->gid;
}

static int
set_groups(const struct identity *who)
{
    struct passwd *pw = getpwuid(who->uid);

    if (pw != NULL)
        return initgroups(pw->pw_name, who->gid);
    return setgroups(1, &who->gid);
}

/* Groups first: a process that is no longer root may not change them. */
static int
set_identity(const struct identity *who, const char **why)
{
    if (who->name != NULL && set_groups(who) < 0)
        return fail(why, "setting the supplementary groups");
    if (setresgid(who->gid, who->gid, who->gid) < 0)
        return fail(why, "changing the group");
    /* Else the change of user would clear the permitted set: capabilities(7). */
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return fail(why, "keeping capabilities over the change of user");
    if (setresuid(who->uid, who->uid, who->uid) < 0)
        return fail(why, "changing the user");
    if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
        return fail(why, "keeping capabilities over the change of user");
    return 0;
}

static int
may_bind_low_ports(bool *may, const char **why)
{
    cap_t caps = cap_get_proc();
    cap_flag_value_t flag;

    if (caps == NULL)
        return fail(why, "reading the capabilities");
    cap_get_flag(caps, CAP_NET_BIND_SERVICE, CAP_PERMITTED, &flag);
    *may = flag == CAP_SET;
    cap_free(caps);
    return 0;
}

static int
set_caps(bool keep_bind, const char **why)
{
    const cap_value_t bind_cap = CAP_NET_BIND_SERVICE;
    cap_t caps = cap_init();
    int rc;

    if (caps == NULL)
        return fail(why, "giving up capabilities");
    if (keep_bind) {
        cap_set_flag(caps, CAP_PERMITTED, 1, &bind_cap, CAP_SET);
        cap_set_flag(caps, CAP_EFFECTIVE, 1, &bind_cap, CAP_SET);
        /* An ambient capability must be inheritable. */
        cap_set_flag(caps, CAP_INHERITABLE, 1, &bind_cap, CAP_SET);
    }
    rc = cap_set_proc(caps);
    cap_free(caps);
    if (rc < 0)
        return fail(why, "giving up capabilities");
    /* What is no longer permitted is not ambient either. */
    if (keep_bind && cap_set_ambient(CAP_NET_BIND_SERVICE, CAP_SET) < 0)
        return fail(why, "making CAP_NET_BIND_SERVICE ambient");
    return 0;
}

int
privs_drop(const char *user, const char *group, const char **why)
{
    bool was_root = geteuid() == 0 || getuid() == 0;
    struct identity who;
    bool keep_bind;

    if (find_identity(&who, user, group, why) < 0 || may_bind_low_ports(&keep_bind, why) < 0)
        return -1;
    if (!is_already(&who) && set_identity(&who, why) < 0)
        return -1;
    if (set_caps(keep_bind, why) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(why, "setting no_new_privs");
    if (was_root && who.uid != 0 && setresuid(0, 0, 0) == 0) {
        errno = EPERM;
        return fail(why, "checking that root cannot be had back");
    }
    return 0;
}
