/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_skeleton.c - everything of template `host` around /usr
 *
 * What a program expects in /etc and /var is either written here or copied from a fixed list of
 * places that hold no secrets by their nature; host_copy() also looks at modes and contents. Left
 * out on purpose: shadow, machine-id, ssh and ssl/private, environment, profile.d, hosts,
 * resolv.conf, anything of services, and configuration that often carries tokens (npmrc, pip.conf,
 * gitconfig).
 */
#include "spawn/host_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/banned.h"

#define STICKY 01777

static const struct {
	const char *path;
	uid_t owner;
	mode_t mode;
} dirs[] = {
    {"usr", 0, 0755},
    {"etc", 0, 0755},
    {"proc", 0, 0555},
    {"sys", 0, 0555},
    {"dev", 0, 0755},
    {"run", 0, 0755},
    {"tmp", 0, STICKY},
    {"mnt", 0, 0755},
    {"media", 0, 0755},
    {"srv", 0, 0755},
    {"opt", 0, 0755},
    {"root", 0, 0700},
    {"home", 0, 0755},
    {"home/" HOST_USER, HOST_USER_ID, 0755},
    {"var", 0, 0755},
    {"var/tmp", 0, STICKY},
    {"var/cache", 0, 0755},
    {"var/cache/apt", 0, 0755},
    {"var/cache/apt/archives", 0, 0755},
    {"var/cache/apt/archives/partial", 0, 0700},
    {"var/cache/debconf", 0, 0755},
    {"var/cache/ldconfig", 0, 0700},
    {"var/lib", 0, 0755},
    {"var/lib/apt", 0, 0755},
    {"var/lib/apt/lists", 0, 0755},
    {"var/lib/apt/lists/partial", 0, 0700},
    {"var/lib/apt/mirrors", 0, 0755},
    {"var/lib/apt/mirrors/partial", 0, 0755},
    {"var/lib/apt/periodic", 0, 0755},
    {"var/lib/dpkg", 0, 0755},
    {"var/lib/dpkg/updates", 0, 0755},
    {"var/lib/misc", 0, 0755},
    {"var/lib/sudo", 0, 0711},
    {"var/lib/sudo/lectured", 0, 0700},
    {"var/local", 0, 0755},
    {"var/log", 0, 0755},
    {"var/log/apt", 0, 0755},
    {"var/mail", 0, 0755},
    {"var/opt", 0, 0755},
    {"var/spool", 0, 0755},
    {"etc/sudoers.d", 0, 0750},
    {"etc/profile.d", 0, 0755},
    {"etc/apt", 0, 0755},
    {"etc/apt/apt.conf.d", 0, 0755},
    {"etc/apt/preferences.d", 0, 0755},
    {"etc/apt/sources.list.d", 0, 0755},
    {"etc/apt/trusted.gpg.d", 0, 0755},
    {"etc/ssl", 0, 0755},
    {"etc/ssl/private", 0, 0700},
};

/* Below /etc of the host, if there. A name that ends in '*' stands for all that begin so. */
/* A list by subject, not one name a line. */
/* clang-format off */
static const char *const etc_copied[] = {
	"ImageMagick-*", "R", "X11/rgb.txt", "adduser.conf", "alternatives", "apt/apt.conf.d",
	"apt/keyrings", "apt/listchanges.conf", "apt/preferences.d", "apt/sources.list",
	"apt/sources.list.d", "apt/trusted.gpg.d", "bash.bashrc", "bash_completion",
	"bash_completion.d", "bashrc", "bindresvport.blacklist", "ca-certificates",
	"ca-certificates.conf", "calendar", "crypto-policies", "debconf.conf", "debian_version",
	"default/locale", "default/useradd", "deluser.conf", "dpkg", "emacs", "ethertypes",
	"fedora-release", "fonts", "gai.conf", "gdb", "ghostscript", "glvnd", "groff",
	"gss/mech.d", "gprofng.rc", "gtk-2.0", "gtk-3.0", "host.conf", "inputrc", "issue", "java*",
	"kernel-img.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "libaudit.conf", "libnl*",
	"locale.alias", "locale.conf", "locale.gen", "localtime", "login.defs", "logrotate.d",
	"lsb-release", "magic", "magic.mime", "mailcap", "mailcap.order", "manpath.config", "maven",
	"mime.types", "mke2fs.conf", "motd", "mysql/conf.d", "nanorc", "netconfig", "networks",
	"nvim", "opencl", "OpenCL", "os-release", "pam.conf", "pam.d", "papersize", "perl",
	"php*", "pki/ca-trust", "pki/tls/cert.pem", "pki/tls/certs", "pki/tls/openssl.cnf",
	"profile", "protocols", "python*", "redhat-release", "rmt", "rpc", "rpm", "ruby*", "screenrc",
	"security", "selinux/semanage.conf", "services", "sgml", "shells", "skel", "ssl/certs",
	"ssl/openssl.cnf", "subversion", "sysctl.conf", "system-release", "terminfo", "texmf",
	"timezone", "ucf.conf", "vdpau_wrapper.cfg", "vim", "vulkan", "wgetrc", "xattr.conf",
	"xdg/menus", "xml", "zsh",
};
/* clang-format on */

static const char *const var_copied[] = {
    "var/lib/apt/extended_states",
    "var/lib/dpkg/alternatives",
    "var/lib/dpkg/arch",
    "var/lib/dpkg/cmethopt",
    "var/lib/dpkg/diversions",
    "var/lib/dpkg/info",
    "var/lib/dpkg/statoverride",
    "var/lib/dpkg/triggers",
};

static const struct {
	const char *target, *path;
} links[] = {
    {"/run", "var/run"},
    {"/run/lock", "var/lock"},
    {"/var/mail", "var/spool/mail"},
    {"/proc/self/mounts", "etc/mtab"},
    {"/usr/lib/os-release", "etc/os-release"},
};

#define PAM_NO_LIMITS                                                                              \
	"account required pam_unix.so\n"                                                           \
	"session required pam_permit.so\n"

static const struct {
	const char *path, *text;
	mode_t mode;
} files[] = {
    {"etc/hostname", HOST_NAME "\n", 0644},
    {"etc/hosts",
        "127.0.0.1 localhost\n127.0.1.1 " HOST_NAME "\n"
        "::1 localhost ip6-localhost ip6-loopback\n",
        0644},
    {"etc/resolv.conf", "# No name server: this sandbox has no network.\n", 0644},
    {"etc/nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\ngshadow: files\nhosts: files dns\n"
        "networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n",
        0644},
    {"etc/fstab", "", 0644},
    {"etc/machine-id", "", 0444},
    {"etc/environment", "PATH=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\n",
        0644},
    {"etc/subuid", "", 0644},
    {"etc/subgid", "", 0644},
    {"etc/sudoers",
        "Defaults env_reset, !fqdn, !lecture\n"
        "Defaults secure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\n"
        "root ALL=(ALL:ALL) NOPASSWD: ALL\n"
        "@includedir /etc/sudoers.d\n",
        0440},
    {"etc/sudoers.d/" HOST_USER, HOST_USER " ALL=(ALL:ALL) NOPASSWD: ALL\n", 0440},
    /* The host's own may ask services that are not here, or raise limits, which fails here. */
    {"etc/pam.d/sudo", "auth required pam_unix.so\n" PAM_NO_LIMITS, 0644},
    {"etc/pam.d/sudo-i", "auth required pam_unix.so\n" PAM_NO_LIMITS, 0644},
    {"etc/pam.d/su", "auth sufficient pam_rootok.so\nauth required pam_unix.so\n" PAM_NO_LIMITS,
        0644},
    {"etc/pam.d/su-l", "auth sufficient pam_rootok.so\nauth required pam_unix.so\n" PAM_NO_LIMITS,
        0644},
    {"var/lib/dpkg/available", "", 0644},
    {"var/lib/dpkg/lock", "", 0640},
    {"var/lib/dpkg/lock-frontend", "", 0640},
};

static int make_dirs(const struct host_gen *g)
{
	int r = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs) && r == 0; i++)
		r = host_mkdir(g, dirs[i].path, dirs[i].owner, dirs[i].mode);
	return r;
}

/* bin -> usr/bin and so on, as the host has them. */
static int copy_usr_links(const struct host_gen *g, struct av_err *err)
{
	static const char *const names[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++) {
		char target[64];
		ssize_t n = readlinkat(g->host, names[i], target, sizeof(target) - 1);
		if (n < 0 && errno == ENOENT)
			continue;
		struct av_str t = av_str_n(target, n < 0 ? 0 : (size_t)n);
		if (!av_str_starts(t, AV_STR("usr/")) && !av_str_starts(t, AV_STR("/usr/")))
			return av_err_set(err, AV_ERR_UNSUPPORTED,
			    "template host needs a merged /usr, but /%s is no link into it: "
			    "install "
			    "the package usrmerge, or build a template",
			    names[i]);
		target[n] = 0;
		int r = host_symlink(g, target, names[i]);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot link /%s", names[i]);
	}
	return 0;
}

/* All names below the host's /etc that begin with prefix. */
static int copy_etc_prefix(const struct host_gen *g, struct av_str prefix)
{
	int fd = host_open(g, "etc", O_RDONLY | O_DIRECTORY), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		av_close_fd(&fd);
		return 0;
	}
	for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;) {
		char path[NAME_MAX + 8] = "etc/";
		if (av_str_starts(av_str_c(e->d_name), prefix) &&
		    av_str_copy(path + 4, sizeof(path) - 4, av_str_c(e->d_name)) == 0)
			r = host_copy(g, path);
	}
	closedir(dir);
	return r;
}

static int copy_etc(const struct host_gen *g)
{
	int r = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(etc_copied) && r == 0; i++) {
		struct av_str name = av_str_c(etc_copied[i]);
		char path[128] = "etc/";
		if (name.p[name.n - 1] == '*')
			r = copy_etc_prefix(g, av_str_n(name.p, name.n - 1));
		else if (av_str_copy(path + 4, sizeof(path) - 4, name) == 0)
			r = host_copy(g, path);
	}
	return r;
}

static int copy_var(const struct host_gen *g)
{
	int r = host_copy_data(g, "var/lib/dpkg/status", "var/lib/dpkg/status");
	for (size_t i = 0; i < AV_ARRAY_LEN(var_copied) && r == 0; i++)
		r = host_copy(g, var_copied[i]);
	return r;
}

static int write_files(const struct host_gen *g)
{
	int r = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(links) && r == 0; i++)
		r = host_symlink(g, links[i].target, links[i].path);
	if (r == 0)
		r = host_mkdir(g, "etc/pam.d", 0, 0755);
	for (size_t i = 0; i < AV_ARRAY_LEN(files) && r == 0; i++)
		r = host_write(g, files[i].path, av_str_c(files[i].text), 0, files[i].mode);
	return r;
}

static int write_buf(
    const struct host_gen *g, const char *path, struct av_buf *b, long group, mode_t mode)
{
	int r = av_buf_error(b);
	return r < 0 ? r : host_write(g, path, av_buf_str(b), group < 0 ? 0 : (gid_t)group, mode);
}

static int read_host(const struct host_gen *g, const char *path, struct av_buf *b)
{
	AV_CLEANUP(av_closep) int fd = host_open(g, path, O_RDONLY);
	char *p;
	ssize_t n = fd;
	while (n >= 0 && av_buf_reserve(b, 16384, &p) == 0) {
		n = av_read_full(fd, p, 16384);
		if (n <= 0)
			break;
		av_buf_commit(b, (size_t)n);
	}
	return n < 0 ? (int)n : av_buf_error(b);
}

static int write_accounts(const struct host_gen *g)
{
	enum { MAX = 4 << 20 };
	AV_CLEANUP(av_buf_clear) struct av_buf host = AV_BUF_INIT(MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf passwd = AV_BUF_INIT(MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf group = AV_BUF_INIT(MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf locked = AV_BUF_INIT(MAX);
	int r = read_host(g, "etc/passwd", &host);
	if (r == 0)
		r = host_make_passwd(av_buf_str(&host), &passwd);
	av_buf_reset(&host);
	if (r == 0)
		r = read_host(g, "etc/group", &host);
	if (r == 0)
		r = host_make_group(av_buf_str(&host), &group);
	if (r == 0)
		r = write_buf(g, "etc/passwd", &passwd, 0, 0644);
	if (r == 0)
		r = write_buf(g, "etc/group", &group, 0, 0644);
	if (r == 0)
		r = host_make_shadow(av_buf_str(&passwd), &locked);
	long shadow = host_group_id(av_buf_str(&group), "shadow");
	if (r == 0)
		r = write_buf(g, "etc/shadow", &locked, shadow, shadow < 0 ? 0600 : 0640);
	av_buf_reset(&locked);
	if (r == 0)
		r = host_make_gshadow(av_buf_str(&group), &locked);
	return r < 0 ? r : write_buf(g, "etc/gshadow", &locked, shadow, shadow < 0 ? 0600 : 0640);
}

/* The skeleton's own copy of /etc/skel (host_copy has filtered it) into a home directory. */
static int fill_home(const struct host_gen *g, const char *home, uid_t owner)
{
	static const char *const names[] = {".bashrc", ".profile", ".bash_logout", ".bash_profile"};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++) {
		char text[32768], to[64] = "", from[64] = "etc/skel/";
		struct av_str name = av_str_c(names[i]);
		if (av_str_copy(from + 9, sizeof(from) - 9, name) < 0)
			return -ENAMETOOLONG;
		ssize_t n = av_read_file_at(g->root, from, text, sizeof(text));
		if (n < 0)
			continue;
		size_t len = strlen(home);
		if (av_str_copy(to, sizeof(to) - 1, av_str_c(home)) < 0)
			return -ENAMETOOLONG;
		to[len] = '/';
		if (av_str_copy(to + len + 1, sizeof(to) - len - 1, name) < 0)
			return -ENAMETOOLONG;
		int r = host_write(g, to, av_str_n(text, (size_t)n), 0, 0644);
		AV_CLEANUP(av_closep)
		int fd = r < 0 ? -1 : openat(g->root, to, O_RDONLY | O_CLOEXEC);
		if (r == 0)
			r = fd < 0 ? -errno : host_own(g, fd, owner, owner, 0644);
		if (r < 0)
			return r;
	}
	return 0;
}

int host_skeleton_make(const struct host_gen *g, struct av_err *err)
{
	static const struct {
		int (*make)(const struct host_gen *g);
		const char *what;
	} steps[] = {
	    {make_dirs, "directories"},
	    {copy_etc, "/etc"},
	    {copy_var, "/var"},
	    {write_files, "/etc"},
	    {write_accounts, "accounts"},
	};
	int r = host_own(g, g->root, 0, 0, 0755);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make template host");
	r = copy_usr_links(g, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < AV_ARRAY_LEN(steps); i++) {
		r = steps[i].make(g);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r,
			    "cannot make %s of template host", steps[i].what);
	}
	r = fill_home(g, "root", 0);
	if (r == 0)
		r = fill_home(g, "home/" HOST_USER, HOST_USER_ID);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make the homes of template host")
	             : 0;
}
