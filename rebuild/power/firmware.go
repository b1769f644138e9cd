package power

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/hint"
	"mayfly/inventory"
)

// Files of a machine that boots by UEFI.
const (
	mediumFile = "boot.img" // there only while a boot begins: it holds the ticket
	varsFile   = "vars.fd"  // the firmware's variables: new at each boot
	tpmDir     = "tpm"      // the TPM's own memory. It stays: it is what the inventory's endorsement key is of
	tpmSocket  = "tpm.sock"
	tpmPID     = "tpm.pid"
	tpmLog     = "tpm.log"
)

// Debian's UEFI firmware for QEMU, and the TPM.
const (
	ovmfDir        = "/usr/share/OVMF/"
	ovmfCode       = ovmfDir + "OVMF_CODE_4M.fd"
	ovmfVars       = ovmfDir + "OVMF_VARS_4M.fd"
	ovmfSecureCode = ovmfDir + "OVMF_CODE_4M.secboot.fd"
	swtpmProgram   = "swtpm"
	maxVars        = 16 << 20
	tpmWait        = 30 * time.Second
)

func (q *QEMU) uefi() bool { return q.server.Power.Firmware == inventory.FirmwareUEFI }

// firmwareArguments are QEMU's options for OVMF, the TPM and the medium. The medium is a USB stick: firmware reads it, and the server's kernel
// has no driver for it.
func (q *QEMU) firmwareArguments() []string {
	code, secure := ovmfCode, []string(nil)
	if q.server.Power.SecureBootVars != "" {
		code, secure = ovmfSecureCode, []string{"-global", "driver=cfi.pflash01,property=secure,value=on"}
	}
	return append(secure,
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+code,
		"-drive", "if=pflash,unit=1,format=raw,file="+varsFile,
		"-chardev", "socket,id=tpm0,path="+tpmSocket, "-tpmdev", "emulator,id=tpm0,chardev=tpm0", "-device", "tpm-crb,tpmdev=tpm0",
		"-device", "qemu-xhci,id=xhci0", "-drive", "if=none,format=raw,readonly=on,id=medium0,file="+mediumFile,
		"-device", "usb-storage,bus=xhci0.0,drive=medium0,removable=on,bootindex=0")
}

// prepareFirmware writes the medium and fresh variables. Nothing that firmware or a server wrote outlives a life but the TPM's memory.
func (q *QEMU) prepareFirmware(boot Boot) error {
	if boot.UKI.Path == "" {
		return failf(MediumMissing, "the release has no unified kernel image, and the machine boots by UEFI")
	}
	template := ovmfVars
	if v := q.server.Power.SecureBootVars; v != "" {
		template = v
	}
	if err := copyVars(template, filepath.Join(q.dir, varsFile)); err != nil {
		return &Failure{FirmwareMissing, hint.New(err, "install it: apt-get install ovmf swtpm")}
	}
	f, err := create(filepath.Join(q.dir, mediumFile))
	if err != nil {
		return err
	}
	return errors.Join(writeMedium(f, boot), f.Close())
}

func copyVars(from, to string) (err error) {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if info, err := src.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxVars {
		return errors.Join(err, fmt.Errorf("%s is not a regular file of at most %d bytes", from, maxVars))
	}
	dst, err := create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.LimitReader(src, maxVars))
	return errors.Join(err, dst.Close())
}

// startTPM starts the machine's TPM as a process of its own: it is reset, and keeps what it kept. It ends when the machine does.
func (q *QEMU) startTPM(ctx context.Context) error {
	if err := q.endTPM(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(q.dir, tpmDir), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(q.dir, tpmLog), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(swtpmProgram, "socket", "--tpm2", "--tpmstate", "dir="+tpmDir, "--ctrl", "type=unixio,path="+tpmSocket+",mode=0600",
		"--pid", "file="+filepath.Join(q.dir, tpmPID), "--terminate")
	cmd.Dir = q.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return &Failure{FirmwareMissing, hint.New(err, "install it: apt-get install swtpm")}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps it
	timer := time.NewTimer(tpmWait)
	defer timer.Stop()
	for {
		// The pid file comes after the socket listens.
		if _, err := os.Stat(filepath.Join(q.dir, tpmPID)); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			said, rerr := tail(filepath.Join(q.dir, tpmLog))
			return errors.Join(failf(FirmwareMissing, "the TPM ended: %w: %s", err, printable(string(said))), rerr)
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return failf(FirmwareMissing, "the TPM did not start in %s", tpmWait)
		case <-time.After(pollInterval):
		}
	}
}

// endTPM ends the machine's TPM, should it not have ended with the machine, and returns when it is gone.
func (q *QEMU) endTPM(ctx context.Context) error {
	running, err := q.findTPM()
	if err != nil {
		return err
	}
	for _, pid := range running {
		if err := endProcess(ctx, pid, q.isTPM); err != nil {
			return err
		}
	}
	return q.removeFiles(tpmSocket, tpmPID)
}

func (q *QEMU) isTPM(pid int) (bool, error) {
	args, err := arguments(pid)
	return err == nil && len(args) > 0 && filepath.Base(args[0]) == swtpmProgram && argument(args, "--pid") == "file="+filepath.Join(q.dir, tpmPID), err
}

func (q *QEMU) findTPM() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ok, err := q.isTPM(pid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		} else if ok {
			out = append(out, pid)
		}
	}
	return out, nil
}
