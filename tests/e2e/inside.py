"""System calls made by another process's threads, to see what the kernel lets each of them do (ptrace(2), x86-64, root).

A thread is stopped where it waits in the kernel, made to step over one `syscall` instruction with other registers, and put
back as it was: its own call is restarted by the kernel.
"""

import contextlib
import ctypes
import os
import platform
import signal
import time

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

CONT, SINGLESTEP, GETREGS, SETREGS, DETACH, SEIZE, INTERRUPT = 7, 9, 12, 13, 17, 0x4206, 0x4207
WALL = 0x40000000  # threads of others are waited for like children

REGISTERS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs".split()
OPENAT, CLOSE, SOCKET, EXECVE, KILL, SETRESUID = 257, 3, 41, 59, 62, 117
AT_FDCWD = -100


def why_not():
    """None where this works."""
    if os.geteuid() != 0:
        return "needs root"
    if platform.machine() != "x86_64":
        return "knows the registers of x86-64 only"
    return None


class Thread:
    """A stopped thread."""

    def __init__(self, pid, tid):
        self.pid, self.tid = pid, tid
        self._ptrace(SEIZE)
        self._stop()

    def call(self, number, *arguments):
        """What the kernel answers: negative is -errno. Arguments are numbers and bytes (put on the stack)."""
        saved = self._registers()
        registers, place = dict(saved), saved["rsp"] - 4096
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            for name, argument in zip("rdi rsi rdx r10 r8 r9".split(), arguments):
                if isinstance(argument, bytes):
                    memory.seek(place)
                    memory.write(argument + b"\0")
                    argument, place = place, place - 512
                registers[name] = argument & (1 << 64) - 1
            memory.seek(saved["rip"] - 2)
            if memory.read(2) != b"\x0f\x05":
                raise AssertionError(f"thread {self.tid} does not wait in the kernel")
        # No number of its own call: nothing is to be restarted meanwhile.
        registers.update(rax=number, rip=saved["rip"] - 2, orig_rax=(1 << 64) - 1)
        self._set(registers)
        self._ptrace(SINGLESTEP)
        self._wait(lambda status: os.WSTOPSIG(status) == signal.SIGTRAP and status >> 16 == 0)
        answer = self._registers()["rax"]
        self._set(saved)
        return answer - (1 << 64) if answer >> 63 else answer

    def _stop(self):
        end = time.monotonic() + 10
        while True:
            self._ptrace(INTERRUPT)
            self._wait(lambda status: True)
            with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
                memory.seek(self._registers()["rip"] - 2)
                if memory.read(2) == b"\x0f\x05":
                    return
            if time.monotonic() > end:
                raise AssertionError(f"thread {self.tid} never waits in the kernel")
            self._ptrace(CONT)
            time.sleep(0.01)

    def _wait(self, wanted):
        while True:
            _, status = os.waitpid(self.tid, WALL)
            if not os.WIFSTOPPED(status):
                raise AssertionError(f"thread {self.tid} ended with {status:#x}")
            if wanted(status):
                return
            self._ptrace(SINGLESTEP)

    def _registers(self):
        words = (ctypes.c_uint64 * len(REGISTERS))()
        self._ptrace(GETREGS, ctypes.addressof(words))
        return dict(zip(REGISTERS, words))

    def _set(self, registers):
        words = (ctypes.c_uint64 * len(REGISTERS))(*(registers[name] for name in REGISTERS))
        self._ptrace(SETREGS, ctypes.addressof(words))

    def _ptrace(self, request, data=None):
        if _libc.ptrace(request, self.tid, None, data) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {self.tid}")

    def leave(self):
        self._ptrace(DETACH)


@contextlib.contextmanager
def stopped(pid, tid):
    thread = Thread(pid, tid)
    try:
        yield thread
    finally:
        thread.leave()
