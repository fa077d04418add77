"""Make an interpreter on Linux look like one on macOS: run before anything else.

What only Linux has is taken away: ``/proc``, and names of the modules that speak to the system.
The names are those that CPython's documentation of each module calls "Availability: Linux", and
those that Apple's headers lack.
"""

from __future__ import annotations

import _signal
import _socket
import builtins
import errno
import fcntl
import functools
import io
import os
import posix
import select
import signal
import sys
import sysconfig
import types

# A name that ends in "_" stands for all that begin with it.
_ONLY_ON_LINUX = {
    fcntl: "F_OFD_ F_ADD_SEALS F_GET_SEALS F_SEAL_ F_SETPIPE_SZ F_GETPIPE_SZ F_SETSIG F_GETSIG "
    "F_NOTIFY F_SETLEASE F_GETLEASE DN_",
    os: "sched_ SCHED_ O_TMPFILE O_PATH O_DIRECT O_LARGEFILE O_NOATIME memfd_create MFD_ pidfd_ "
    "PIDFD_ P_PIDFD eventfd eventfd_ EFD_ timerfd_ TFD_ splice SPLICE_ copy_file_range "
    "posix_fallocate posix_fadvise POSIX_FADV_ fdatasync pipe2 getxattr setxattr listxattr "
    "removexattr XATTR_ getrandom GRND_ setns unshare CLONE_ setresuid setresgid getresuid "
    "getresgid RTLD_DEEPBIND O_RSYNC preadv2 pwritev2 RWF_",
    select: "epoll EPOLL_ EPOLLIN EPOLLOUT EPOLLERR EPOLLHUP EPOLLET EPOLLONESHOT EPOLLEXCLUSIVE "
    "EPOLLPRI EPOLLRDHUP POLLRDHUP",
    _signal: "SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT SIGPOLL SIGCLD sigtimedwait sigwaitinfo "
    "pidfd_send_signal",
    _socket: "SO_PEERCRED SO_PASSCRED SO_PEERSEC SO_BINDTODEVICE SO_DOMAIN SO_PROTOCOL SO_MARK "
    "SO_INCOMING_CPU SO_PRIORITY MSG_NOSIGNAL MSG_CMSG_CLOEXEC MSG_ERRQUEUE MSG_MORE MSG_CONFIRM "
    "SOCK_CLOEXEC SOCK_NONBLOCK TCP_USER_TIMEOUT TCP_QUICKACK TCP_CORK TCP_DEFER_ACCEPT "
    "TCP_KEEPIDLE TCP_LINGER2 TCP_SYNCNT TCP_WINDOW_CLAMP TCP_INFO AF_NETLINK AF_PACKET AF_VSOCK "
    "AF_ALG AF_CAN AF_TIPC AF_QIPCRTR AF_RDS PF_ CAN_ NETLINK_ ALG_ SOL_ALG SOL_CAN_ SOL_TIPC "
    "TIPC_ VM_ SO_VM_ VMADDR_",
    errno: "ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO "
    "EBADRQC EBADSLT EBFONT ENONET ENOPKG EADV ESRMNT ECOMM EDOTDOT ENOTUNIQ EBADFD EREMCHG "
    "ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC ERESTART ESTRPIPE EUCLEAN ENOTNAM ENAVAIL "
    "EISNAM EREMOTEIO ENOMEDIUM EMEDIUMTYPE "
    "ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED ERFKILL EHWPOISON",
}


def _is_among(name, names):
    return any(name.startswith(one) if one.endswith("_") else name == one for one in names.split())


for _module, _names in _ONLY_ON_LINUX.items():
    for _name in [*vars(_module)]:
        if _is_among(_name, _names):
            delattr(_module, _name)
sys.modules.pop("selectors", None)  # coverage imports it before; it chooses by what select has
for _name in [*vars(signal)]:  # its enumeration is made of what _signal has
    if _is_among(_name, _ONLY_ON_LINUX[_signal]):
        delattr(signal, _name)


def _without_proc(call):
    @functools.wraps(call)
    def hidden(path=".", *arguments, **options):
        name = os.fspath(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        if os.fsencode(name).startswith((b"/proc", b"/sys/")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return call(path, *arguments, **options)

    return hidden


builtins.open = io.open = _without_proc(io.open)
for _name in ("open", "stat", "lstat", "readlink", "listdir", "scandir"):
    setattr(os, _name, _without_proc(getattr(os, _name)))
os.access = lambda path, mode, **options: (
    not os.fsencode(path).startswith((b"/proc", b"/sys/")) and posix.access(path, mode, **options)
)

_MACHINE = os.uname_result(
    ("Darwin", "MacBook.local", "24.1.0", "Darwin Kernel Version 24.1.0", "arm64")
)
os.uname = lambda: _MACHINE
sysconfig.get_config_vars()  # they are in a module that is named after the real platform
sys.platform = "darwin"

# urllib asks the system's settings for a proxy.
_proxies = types.ModuleType("_scproxy")
_proxies._get_proxy_settings = dict
_proxies._get_proxies = dict
sys.modules["_scproxy"] = _proxies
