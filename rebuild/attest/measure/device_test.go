package measure

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAnswerThatComesLater: a TPM takes its time, and nothing to read yet is not the end of it.
func TestAnswerThatComesLater(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	done := make(chan error, 1)
	go func() { done <- ExtendOn(TPM(pair[0]), 14, [32]byte{1}) }()
	command := make([]byte, maxAnswer)
	if n, err := TPM(pair[1]).Read(command); err != nil || n != 65 {
		t.Fatalf("got a command of %d bytes, %v", n, err)
	}
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	answer := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, tagSessions), headerBytes)
	if _, err := unix.Write(pair[1], binary.BigEndian.AppendUint32(answer, 0)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
