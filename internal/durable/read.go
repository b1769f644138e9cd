package durable

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// ReadFile reads a file of at most this many bytes: a larger one is an error, whatever its size was said to be. It reads what a person named,
// also a pipe, and waits for it; what others may have laid somewhere is for ReadRegular.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, path, limit)
}

// ReadRegular is ReadFile for a regular file, and waits for nobody: not for the other end of a pipe that somebody laid in its place either.
func ReadRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading %s: not a regular file", path)
	}
	return readBounded(f, path, limit)
}

func readBounded(f io.Reader, path string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("reading %s: larger than %d bytes", path, limit)
	}
	return data, nil
}
