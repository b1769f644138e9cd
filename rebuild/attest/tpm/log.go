package tpm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"mayfly/rebuild/attest"
)

// EventLog is where the kernel shows the firmware's event log, once securityfs is mounted.
const EventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

// ReadLog reads an event log; nothing, where the firmware left none.
func ReadLog(path string) (data []byte, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the firmware's event log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, attest.MaxEventLog+1))
	if err == nil && len(data) > attest.MaxEventLog {
		err = fmt.Errorf("more than %d bytes", attest.MaxEventLog)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the firmware's event log: %w", err)
	}
	return data, nil
}
