package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Specification constants: the Assuan protocol ("Client responses" and "Server responses" of its manual) and libgpg-error's codes, the
// source of an error in the upper bits.
const (
	assuanLine = 1000 // bytes of a line, its end included

	gpgCodeMask       = 0xffff
	gpgTimeout        = 62
	gpgCancelled      = 99
	gpgFullyCancelled = 198
)

// assuanReplies bounds the lines that answer one command.
const assuanReplies = 64

// assuanError is ERR from the other side.
type assuanError struct {
	code uint32
	text string
}

func (e *assuanError) Error() string {
	return fmt.Sprintf("error %d (%s)", e.code&gpgCodeMask, shown(e.text))
}

// assuan is the client's side of a connection. It holds what it read in one buffer, which wipe clears: a PIN passes through it.
type assuan struct {
	r      io.Reader
	w      io.Writer
	buffer [assuanLine]byte
	start  int // of what is not taken yet
	end    int
}

func (a *assuan) wipe() { clear(a.buffer[:]) }

// line takes one line, without its end; it is valid until the next. A line longer than the protocol has it is an error.
func (a *assuan) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(a.buffer[a.start:a.end], '\n'); i >= 0 {
			line := a.buffer[a.start : a.start+i]
			a.start += i + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if a.start > 0 {
			n := copy(a.buffer[:], a.buffer[a.start:a.end])
			clear(a.buffer[n:a.end])
			a.start, a.end = 0, n
		}
		if a.end == len(a.buffer) {
			return nil, fmt.Errorf("a line of more than %d bytes", assuanLine-1)
		}
		n, err := a.r.Read(a.buffer[a.end:])
		a.end += n
		if n == 0 && err != nil {
			return nil, noEOF(err)
		}
	}
}

// answer reads until OK and returns the data of D lines, of at most so many bytes; the caller wipes it.
func (a *assuan) answer(most int) (data []byte, err error) {
	data = make([]byte, 0, most)
	defer func() {
		if err != nil {
			clear(data[:cap(data)])
			data = nil
		}
	}()
	for range assuanReplies {
		line, err := a.line()
		if err != nil {
			return nil, err
		}
		word, rest, _ := bytes.Cut(line, []byte(" "))
		switch string(word) {
		case "OK":
			return data, nil
		case "ERR":
			return nil, parseAssuanError(rest)
		case "S":
		case "D":
			if data, err = appendUnescaped(data, rest); err != nil {
				return data, err
			}
		default:
			if !bytes.HasPrefix(line, []byte("#")) {
				return data, fmt.Errorf("an answer %s, want OK, ERR, S or D", shown(string(word)))
			}
		}
	}
	return data, fmt.Errorf("more than %d lines in one answer", assuanReplies)
}

func parseAssuanError(rest []byte) error {
	number, text, _ := strings.Cut(string(rest), " ")
	code, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return fmt.Errorf("an error without a number: %s", shown(number))
	}
	return &assuanError{uint32(code), text}
}

// appendUnescaped adds the data of a D line; data never grows beyond its capacity, so that no copy of it is left anywhere.
func appendUnescaped(data, escaped []byte) ([]byte, error) {
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		if c == '%' {
			if i+2 >= len(escaped) {
				return data, errors.New("data that ends inside an escape")
			}
			n, err := strconv.ParseUint(string(escaped[i+1:i+3]), 16, 8)
			if err != nil {
				return data, errors.New("data with an escape that is none")
			}
			c, i = byte(n), i+2
		}
		if len(data) == cap(data) {
			return data, fmt.Errorf("data of more than %d bytes", cap(data))
		}
		data = append(data, c)
	}
	return data, nil
}

// do sends a command and reads its answer.
func (a *assuan) do(most int, command, argument string) ([]byte, error) {
	line := command
	if argument != "" {
		line += " " + argument
	}
	if len(line) >= assuanLine || strings.ContainsAny(line, "\r\n") {
		return nil, fmt.Errorf("%s: an argument that no line holds", command)
	}
	if _, err := io.WriteString(a.w, line+"\n"); err != nil {
		return nil, err
	}
	data, err := a.answer(most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return data, nil
}

// escapeAssuan writes text as an argument of at most so many bytes, or says that it does not fit.
func escapeAssuan(text string, most int) (argument string, fits bool) {
	var b strings.Builder
	for i := range len(text) {
		part := text[i : i+1]
		if c := text[i]; c == '%' || c < ' ' || c == 0x7f {
			part = fmt.Sprintf("%%%02X", c)
		}
		if b.Len()+len(part) > most {
			return "", false
		}
		b.WriteString(part)
	}
	return b.String(), true
}
