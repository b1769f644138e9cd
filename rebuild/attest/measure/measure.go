// Package measure extends a register of the TPM with what mayfly-stub is about to use. It is one command, written by hand, so that the
// program that is loaded first links no TPM library.
package measure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// Device is the TPM behind the kernel's resource manager.
const Device = "/dev/tpmrm0"

// ErrNone says that the machine has no TPM that the kernel knows.
var ErrNone = errors.New("no TPM")

// Numbers of the TPM library specification, part 2.
const (
	tagSessions = 0x8002     // TPM_ST_SESSIONS
	pcrExtend   = 0x00000182 // TPM_CC_PCR_Extend
	password    = 0x40000009 // TPM_RS_PW
	algSHA256   = 0x000b
	headerBytes = 10
	maxAnswer   = 4096
	answerLimit = 2 * time.Minute // of one command
)

// Extend extends a register of the SHA-256 bank with these hashes, in order.
func Extend(pcr uint32, digests ...[32]byte) (err error) {
	f, err := Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, d := range digests {
		if err := ExtendOn(f, pcr, d); err != nil {
			return err
		}
	}
	return nil
}

// Open opens the machine's TPM, or says ErrNone.
func Open() (TPM, error) {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, ErrNone
	}
	if err != nil {
		return -1, fmt.Errorf("opening the TPM: %w", err)
	}
	return TPM(fd), nil
}

// Close closes it.
func (d TPM) Close() error { return unix.Close(int(d)) }

// TPM is an open TPM that does not block: the kernel takes a command and works on it apart from this thread, so that no signal ends it
// half way. Until it is done, to read gives nothing, which Go's own files take for the end.
type TPM int

// Write gives it a command.
func (d TPM) Write(b []byte) (int, error) { return unix.Write(int(d), b) }

// Read waits for the answer.
func (d TPM) Read(b []byte) (int, error) {
	for end := time.Now().Add(answerLimit); ; {
		left := time.Until(end)
		if left <= 0 {
			return 0, fmt.Errorf("no answer in %s", answerLimit)
		}
		ready := []unix.PollFd{{Fd: int32(d), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		if ready[0].Revents == 0 {
			continue
		}
		return unix.Read(int(d), b)
	}
}

// ExtendOn does the same once, with the TPM behind rw: one write is one command, one read its answer.
func ExtendOn(rw io.ReadWriter, pcr uint32, digest [32]byte) error {
	if _, err := rw.Write(command(pcr, digest)); err != nil {
		return fmt.Errorf("extending PCR %d: %w", pcr, err)
	}
	answer := make([]byte, maxAnswer)
	n, err := rw.Read(answer)
	if err != nil {
		return fmt.Errorf("extending PCR %d: %w", pcr, err)
	}
	if n < headerBytes || int(binary.BigEndian.Uint32(answer[2:])) != n {
		return fmt.Errorf("extending PCR %d: an answer of %d bytes that says it has another length", pcr, n)
	}
	if code := binary.BigEndian.Uint32(answer[6:]); code != 0 {
		return fmt.Errorf("extending PCR %d: the TPM answered %#x", pcr, code)
	}
	return nil
}

// command is TPM2_PCR_Extend with an empty password.
func command(pcr uint32, digest [32]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tagSessions)
	b = binary.BigEndian.AppendUint32(b, 0) // length, below
	b = binary.BigEndian.AppendUint32(b, pcrExtend)
	b = binary.BigEndian.AppendUint32(b, pcr)
	b = binary.BigEndian.AppendUint32(b, 4+2+1+2) // length of the authorization
	b = binary.BigEndian.AppendUint32(b, password)
	b = append(b, 0, 0, 0, 0, 0) // nonce, attributes, password: none
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint16(b, algSHA256)
	b = append(b, digest[:]...)
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
	return b
}
