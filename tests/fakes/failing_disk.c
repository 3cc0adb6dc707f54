/* A disk that fails: preloaded into a process, the n-th change below one folder returns an error.

   Counts what changes a file: write, pwrite, fsync, fdatasync, ftruncate, rename, unlink, mkdir,
   chmod, and open for writing. Python, SQLite and safetensors all go through these functions. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char root[512]; /* counts only paths that contain this */
static long counted = 0, fails_at = -1;
static int error = 0, for_ever = 0;
static char failed[640]; /* what failed first */

/* Count the changes below `folder`; from number `at` on (0: none) fail once or for ever. */
void disk_arm(const char *folder, long at, int code, int keep_failing) {
  strncpy(root, folder, sizeof root - 1);
  counted = 0, error = code, for_ever = keep_failing, failed[0] = 0;
  fails_at = at;
}

long disk_count(void) { return counted; }
const char *disk_failed(void) { return failed; }

static int fails(const char *what, const char *path) {
  if (fails_at < 0 || path == NULL || strstr(path, root) == NULL) return 0;
  counted++;
  if (fails_at == 0 || counted < fails_at || (counted > fails_at && !for_ever)) return 0;
  if (!failed[0]) snprintf(failed, sizeof failed, "%s %s", what, path);
  errno = error;
  return 1;
}

static int fails_on(const char *what, int file) {
  char link[64], path[512];
  if (fails_at < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return fails(what, path);
}

#define CALL(name, result, declared, passed, failing) \
  result name declared { \
    static result(*real) declared; \
    if (!real) real = (result(*) declared)dlsym(RTLD_NEXT, #name); \
    return (failing) ? -1 : real passed; \
  }

CALL(write, ssize_t, (int file, const void *data, size_t size), (file, data, size), fails_on("write", file))
CALL(pwrite, ssize_t, (int file, const void *data, size_t size, off_t at), (file, data, size, at), fails_on("pwrite", file))
CALL(pwrite64, ssize_t, (int file, const void *data, size_t size, off64_t at), (file, data, size, at), fails_on("pwrite", file))
CALL(fsync, int, (int file), (file), fails_on("fsync", file))
CALL(fdatasync, int, (int file), (file), fails_on("fdatasync", file))
CALL(ftruncate, int, (int file, off_t size), (file, size), fails_on("ftruncate", file))
CALL(ftruncate64, int, (int file, off64_t size), (file, size), fails_on("ftruncate", file))
CALL(rename, int, (const char *from, const char *to), (from, to), fails("rename", to))
CALL(unlink, int, (const char *path), (path), fails("unlink", path))
CALL(mkdir, int, (const char *path, mode_t mode), (path, mode), fails("mkdir", path))
CALL(chmod, int, (const char *path, mode_t mode), (path, mode), fails("chmod", path))

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    static int (*real)(const char *, int, ...); \
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more); \
    if (flags & (O_CREAT | O_WRONLY | O_RDWR) && fails("open", path)) return -1; \
    return real(path, flags, mode); \
  }

OPEN(open)
OPEN(open64)
