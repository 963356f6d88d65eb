package process

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var errGone = errors.New("not running")

// handle is a process as a file descriptor: unlike a pid it can never come to mean another process.
type handle struct {
	pid int
	fd  int
}

// openIf opens a process and then looks whether it is the one that is meant; between the two it cannot be replaced.
func openIf(pid int, meant func() bool) (handle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return handle{}, errGone
	}
	if err != nil {
		return handle{}, fmt.Errorf("open process %d: %w", pid, err)
	}
	if !meant() {
		_ = unix.Close(fd)
		return handle{}, errGone
	}
	return handle{pid: pid, fd: fd}, nil
}

func (h handle) close() { _ = unix.Close(h.fd) }

func (h handle) signal(signal syscall.Signal) error {
	err := unix.PidfdSendSignal(h.fd, signal, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// end sends a signal, waits for the process's end, and kills it at the limit.
func (h handle) end(ctx context.Context, signal syscall.Signal, limit time.Duration) error {
	if err := h.signal(signal); err != nil {
		return err
	}
	if gone, err := h.wait(ctx, limit); gone || err != nil {
		return err
	}
	if err := h.signal(syscall.SIGKILL); err != nil {
		return err
	}
	gone, err := h.wait(ctx, limit)
	if err == nil && !gone {
		err = fmt.Errorf("process %d does not end, not even killed", h.pid)
	}
	return err
}

// wait says whether the process ended within the limit. The kernel makes its descriptor readable when it does.
func (h handle) wait(ctx context.Context, limit time.Duration) (bool, error) {
	deadline := time.Now().Add(limit)
	for {
		// A slice at a time, so that a Ctrl-C is heard.
		left := min(time.Until(deadline), 200*time.Millisecond)
		if left <= 0 {
			return false, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		poll := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}
		ready, err := unix.Poll(poll, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		if ready > 0 {
			return true, nil
		}
	}
}
