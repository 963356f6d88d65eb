package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFolder waits for the folder's lock; `current` is false when the folder at that path is another by then.
func lockFolder(root string) (release func(), current bool, err error) {
	folder, err := os.Open(root)
	if errors.Is(err, os.ErrNotExist) {
		return func() {}, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	// Closing it releases the lock, as does the end of the process, however it ends.
	release = func() { folder.Close() }
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX); err != nil {
		release()
		return nil, false, fmt.Errorf("lock %s: %w", root, err)
	}
	locked, err := folder.Stat()
	if err != nil {
		release()
		return nil, false, err
	}
	now, err := os.Stat(root)
	return release, err == nil && os.SameFile(locked, now), nil
}
