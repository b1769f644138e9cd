package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"mayfly/inventory"
	"mayfly/rebuild/power"
)

// canary is a random word that was put into one server in one way. It exists in this process's memory and, until the server is
// rebuilt, in the server's; it is never written to a file here.
type canary struct{ kind, word string }

// Kinds of canaries. A decoy is searched for and never put anywhere: finding it would mean that the search finds anything.
const (
	inFile    = "file"
	inProcess = "process"
	inLog     = "log line"
	decoy     = "decoy"
)

// newCanary makes a word with 128 random bits, which memory does not hold by chance. It is also a valid account name.
func newCanary(kind string) (canary, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return canary{}, fmt.Errorf("making a canary: %w", err)
	}
	return canary{kind, "c" + hex.EncodeToString(b[:])}, nil
}

// plant puts three canaries into a server. What it returns ends the sessions that hold them there.
func (d *demo) plant(ctx context.Context, server string) (release func(), err error) {
	words := map[string]string{}
	for _, kind := range []string{inFile, inProcess, inLog, decoy} {
		c, err := newCanary(kind)
		if err != nil {
			return nil, err
		}
		d.canaries[server] = append(d.canaries[server], c)
		words[kind] = c.word
	}
	if _, err := d.ssh(ctx, server, words[inFile]+"\n", "cat > /tmp/note && sync"); err != nil {
		return nil, fmt.Errorf("writing a file: %w", err)
	}
	// A shell in the background keeps what it read in a variable; the login that started it is over.
	if _, err := d.ssh(ctx, server, words[inProcess]+"\n", `read -r kept; (trap "" HUP; while :; do sleep 3600; done; echo "$kept") >/dev/null 2>&1 </dev/null & echo held`); err != nil {
		return nil, fmt.Errorf("starting a process: %w", err)
	}
	release, err = d.halfLogin(ctx, server, words[inLog])
	if err != nil {
		return nil, fmt.Errorf("making a log line: %w", err)
	}
	return release, nil
}

// throughBastion opens a stream to a server's SSH port as alice, with OpenSSH's client: her agent signs for no other. Closing it ends ssh.
func (d *demo) throughBastion(ctx context.Context, server string) (io.ReadWriteCloser, error) {
	cmd := d.sshCommand(ctx, engineer, bastionName, "-W", server+":22")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.e.lab.Client.Start(cmd); err != nil {
		return nil, fmt.Errorf("opening %s through the bastion: %w", server, err)
	}
	return &passage{stdout, stdin, sync.OnceValue(func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("ending ssh: %w", err)
		}
		_ = cmd.Wait() // it says that it was ended, or that the other side had gone
		return nil
	})}, nil
}

// passage is a stream through the bastion. An SSH connection over it closes it from more than one goroutine.
type passage struct {
	io.Reader
	io.Writer
	end func() error // once
}

func (p *passage) Close() error { return p.end() }

// errHeld ends a login that was only half made.
var errHeld = errors.New("the login was never meant to be finished")

// halfLogin begins a login at a server under the given account name and holds it there: sshd has logged the name, which no account
// has, and waits for a key.
func (d *demo) halfLogin(ctx context.Context, server, user string) (end func(), err error) {
	stream, err := d.throughBastion(ctx, server)
	if err != nil {
		return nil, err
	}
	asked, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_, _, _, err := ssh.NewClientConn(conn{stream}, server, &ssh.ClientConfig{
			User: user,
			Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
				close(asked) // sshd has answered the first request, which named the user
				<-release
				return nil, errHeld
			})},
			HostKeyCallback: d.trustCA(server, nil),
		})
		_ = err // always errHeld, or the server has gone
	}()
	end = func() {
		close(release)
		stream.Close()
		<-done
	}
	select {
	case <-asked:
		return end, nil
	case <-done:
		return nil, errors.Join(errors.New("the server ended the login early"), stream.Close())
	case <-ctx.Done():
		stream.Close()
		return nil, ctx.Err()
	}
}

// trustCA believes a server's host key if the fleet's SSH host CA certified it, and shows the key to seen.
func (d *demo) trustCA(server string, seen func(ssh.PublicKey)) ssh.HostKeyCallback {
	return func(_ string, remote netAddr, key ssh.PublicKey) error {
		known, err := knownhosts.New(d.e.fleet("public", "known_hosts"))
		if err != nil {
			return err
		}
		cert, ok := key.(*ssh.Certificate)
		if !ok {
			return errors.New("the host key is not certified")
		}
		if err := known(server+"."+fleetDomain+":22", remote, key); err != nil {
			return err
		}
		if seen != nil {
			seen(cert.Key)
		}
		return nil
	}
}

// machineOf opens the power driver's view of a server.
func (d *demo) machineOf(server string) (*power.QEMU, error) {
	data, err := os.ReadFile(d.e.fleet("fleet.toml"))
	if err != nil {
		return nil, err
	}
	f, err := inventory.Parse("fleet.toml", data)
	if err != nil {
		return nil, err
	}
	s, ok := f.Server(server)
	if !ok {
		return nil, fmt.Errorf("no server %q", server)
	}
	return power.OpenQEMU(s, d.e.fleet("machines"), power.Options{}, slog.New(slog.DiscardHandler))
}

// searchMemory dumps a machine's whole memory and says which words are in it. The dump is deleted.
func (d *demo) searchMemory(ctx context.Context, server string, words []string) (found map[string]bool, size int64, err error) {
	m, err := d.machineOf(server)
	if err != nil {
		return nil, 0, err
	}
	dir, err := os.MkdirTemp(d.e.dir, "dump-")
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, server)
	if err := m.DumpMemory(ctx, path); err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	found, size, err = search(f, words)
	if err == nil && size < memoryMiB<<20 {
		err = fmt.Errorf("the dump of %s has %d bytes, less than the machine's memory", server, size)
	}
	return found, size, err
}

// search reads a stream to its end and says which words are in it, also across the borders of what is read at once.
func search(r io.Reader, words []string) (found map[string]bool, size int64, err error) {
	const chunk = 4 << 20
	longest := 0
	for _, w := range words {
		longest = max(longest, len(w))
	}
	found = map[string]bool{}
	buf := make([]byte, 0, chunk+longest)
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		size += int64(n)
		buf = buf[:len(buf)+n]
		for _, w := range words {
			if !found[w] && bytes.Contains(buf, []byte(w)) {
				found[w] = true
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return found, size, nil
		}
		if err != nil {
			return nil, size, fmt.Errorf("searching: %w", err)
		}
		keep := min(len(buf), max(longest-1, 0))
		buf = append(buf[:0], buf[len(buf)-keep:]...)
	}
}

// searchFiles says which words are in any file below a directory, and how many files there were.
func searchFiles(root string, words []string) (where map[string]string, files int, err error) {
	where = map[string]string{}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a database's journal comes and goes
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		found, _, err := search(f, words)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		files++
		for w := range found {
			where[w] = path
		}
		return nil
	})
	return where, files, err
}

// wordsOf are the canaries of all servers, with where each belongs.
func (d *demo) wordsOf() (words []string, names map[string]string) {
	names = map[string]string{}
	for _, m := range machines {
		for _, c := range d.canaries[m.Name] {
			words = append(words, c.word)
			names[c.word] = strings.Join([]string{m.Name, c.kind}, "'s ")
		}
	}
	return words, names
}
