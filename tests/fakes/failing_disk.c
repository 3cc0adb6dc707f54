/* A disk that fails: preloaded into a process, the n-th change below one folder returns an error.

   Counts what changes a file: write, pwrite, fsync, fdatasync, ftruncate, rename, unlink, mkdir,
   chmod, and open for writing. Python, SQLite and safetensors all go through these functions.

   Where a recording was asked for, each change is written to it before it is made, as a line
   "KIND OFFSET SIZE PATH", followed by SIZE bytes of data (of a rename: the new path). */

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
static int recording = -1;

/* Record every change to the file `path`, which lies outside of the folder. */
void disk_record(const char *path) { recording = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600); }

/* The whole path, since the folder is known by its whole path. Valid until the next call. */
static const char *whole(const char *path) {
  static __thread char joined[1100];
  char here[512];
  if (path == NULL || path[0] == '/' || getcwd(here, sizeof here) == NULL) return path;
  snprintf(joined, sizeof joined, "%s/%s", here, path);
  return joined;
}

static void note(char kind, const char *path, off_t at, const void *data, size_t size) {
  char line[1200];
  path = whole(path);
  if (recording < 0 || path == NULL || strstr(path, root) == NULL) return;
  int length = snprintf(line, sizeof line, "%c %lld %zu %s\n", kind, (long long)at, size, path);
  if (write(recording, line, length) != length || (size && write(recording, data, size) != (ssize_t)size))
    dprintf(2, "the recording is broken\n");
}

static void note_rename(const char *from, const char *to) {
  char target[1100];
  if (recording < 0) return;
  snprintf(target, sizeof target, "%s", whole(to));
  note('r', from, 0, target, strlen(target));
}

static void note_on(char kind, int file, off_t at, const void *data, size_t size) {
  char link[64], path[512];
  if (recording < 0 || file == recording) return;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = 0;
  note(kind, path, at, data, size);
}

#define PLACE(file) (recording < 0 ? 0 : lseek(file, 0, SEEK_CUR))

/* Count the changes below `folder`; from number `at` on (0: none) fail once or for ever. */
void disk_arm(const char *folder, long at, int code, int keep_failing) {
  strncpy(root, folder, sizeof root - 1);
  counted = 0, error = code, for_ever = keep_failing, failed[0] = 0;
  fails_at = at;
}

long disk_count(void) { return counted; }
const char *disk_failed(void) { return failed; }

static int fails(const char *what, const char *path) {
  path = whole(path);
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

CALL(write, ssize_t, (int file, const void *data, size_t size), (file, data, size),
     (note_on('w', file, PLACE(file), data, size), fails_on("write", file)))
CALL(pwrite, ssize_t, (int file, const void *data, size_t size, off_t at), (file, data, size, at),
     (note_on('w', file, at, data, size), fails_on("pwrite", file)))
CALL(pwrite64, ssize_t, (int file, const void *data, size_t size, off64_t at), (file, data, size, at),
     (note_on('w', file, at, data, size), fails_on("pwrite", file)))
CALL(fsync, int, (int file), (file), (note_on('s', file, 0, "", 0), fails_on("fsync", file)))
CALL(fdatasync, int, (int file), (file), (note_on('s', file, 0, "", 0), fails_on("fdatasync", file)))
CALL(ftruncate, int, (int file, off_t size), (file, size),
     (note_on('t', file, size, "", 0), fails_on("ftruncate", file)))
CALL(ftruncate64, int, (int file, off64_t size), (file, size),
     (note_on('t', file, size, "", 0), fails_on("ftruncate", file)))
CALL(rename, int, (const char *from, const char *to), (from, to),
     (note_rename(from, to), fails("rename", to)))
CALL(unlink, int, (const char *path), (path), (note('u', path, 0, "", 0), fails("unlink", path)))
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
    if (flags & O_CREAT) note(flags & O_TRUNC ? 'n' : 'c', path, 0, "", 0); \
    if (flags & (O_CREAT | O_WRONLY | O_RDWR) && fails("open", path)) return -1; \
    return real(path, flags, mode); \
  }

OPEN(open)
OPEN(open64)
