// Package target is what lies behind the fleet in the test environment: a web server with as many bytes as one asks for, which
// says from which address it was asked, and the client's check of those bytes.
package target

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Source is the response header with the address that the target saw.
const Source = "Mayfly-Source"

// MaxBytes bounds one answer.
const MaxBytes = 256 << 20

const blockSize = 32 << 10

// Handler answers GET /bytes/N with N bytes.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil || n < 0 || n > MaxBytes {
			http.Error(w, "ask for 0 to "+strconv.Itoa(MaxBytes)+" bytes", http.StatusBadRequest)
			return
		}
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, "no source address", http.StatusInternalServerError)
			return
		}
		w.Header().Set(Source, host)
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.Copy(w, io.LimitReader(&stream{}, n)) // the client has gone
	})
	return mux
}

// Server is the web server of the target.
func Server() *http.Server {
	return &http.Server{Handler: Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}

// Check reads an answer to its end and fails unless it is the n right bytes.
func Check(r io.Reader, n int64) error {
	want := io.LimitReader(&stream{}, n)
	a, b := make([]byte, blockSize), make([]byte, blockSize)
	var at int64
	for at < n {
		k := min(n-at, blockSize)
		if _, err := io.ReadFull(want, b[:k]); err != nil {
			return fmt.Errorf("making bytes to compare with: %w", err)
		}
		if m, err := io.ReadFull(r, a[:k]); err != nil {
			return fmt.Errorf("reading after %d of %d bytes: %w", at+int64(m), n, err)
		}
		if !bytes.Equal(a[:k], b[:k]) {
			return fmt.Errorf("wrong bytes after %d of %d", at, n)
		}
		at += k
	}
	if m, err := r.Read(a[:1]); m != 0 || err != io.EOF {
		return fmt.Errorf("more than %d bytes came", n)
	}
	return nil
}

// stream is endless bytes that no cache or compressor makes short: a chain of hashes of a counter.
type stream struct {
	counter uint64
	rest    []byte
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		var seed [8]byte
		binary.BigEndian.PutUint64(seed[:], s.counter)
		s.counter++
		sum := sha256.Sum256(seed[:])
		s.rest = bytes.Repeat(sum[:], blockSize/len(sum))
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
