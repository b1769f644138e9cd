package sshsig

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// Split cuts data into its armored blocks without reading what they hold. Text outside blocks becomes a block of its own,
// which Parse will refuse; white space does not.
func Split(data []byte, max int) ([][]byte, error) {
	if max < 0 || len(data) > max*MaxBlock {
		return nil, fmt.Errorf("more than %d bytes for %d signatures", max*MaxBlock, max)
	}
	var blocks [][]byte
	for {
		data = bytes.TrimLeft(data, " \t\r\n")
		if len(data) == 0 {
			return blocks, nil
		}
		if len(blocks) == max {
			return nil, fmt.Errorf("more than %d signatures", max)
		}
		n := blockLength(data)
		if n > MaxBlock {
			return nil, fmt.Errorf("signature longer than %d bytes", MaxBlock)
		}
		blocks = append(blocks, data[:n])
		data = data[n:]
	}
}

// blockLength is how far the first block of data reaches: to the end of its closing line, or to the next opening line.
func blockLength(data []byte) int {
	next := len(data)
	if i := bytes.Index(data[1:], []byte("\n"+begin)); i >= 0 {
		next = 1 + i + 1
	}
	if i := bytes.Index(data[:next], []byte("\n"+end)); i >= 0 && bytes.HasPrefix(data, []byte(begin)) {
		stop := i + 1 + len(end)
		if j := bytes.IndexByte(data[stop:next], '\n'); j >= 0 {
			return stop + j + 1
		}
	}
	return next
}

// Parse reads one armored block strictly.
func Parse(block []byte) (*Signature, error) {
	if len(block) > MaxBlock {
		return nil, fmt.Errorf("signature longer than %d bytes", MaxBlock)
	}
	block = bytes.ReplaceAll(bytes.TrimSpace(block), []byte("\r\n"), []byte("\n"))
	body, ok := bytes.CutPrefix(block, []byte(begin+"\n"))
	if !ok {
		return nil, errors.New("signature has no opening line")
	}
	body, ok = bytes.CutSuffix(body, []byte("\n"+end))
	if !ok {
		return nil, errors.New("signature has no closing line")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(bytes.ReplaceAll(body, []byte("\n"), nil)))
	if err != nil {
		return nil, fmt.Errorf("signature's armor: %w", err)
	}
	return ParseBlob(raw)
}

// ParseBlob reads what is inside an armored block, strictly.
func ParseBlob(raw []byte) (*Signature, error) {
	if len(raw) > MaxBlock {
		return nil, fmt.Errorf("signature longer than %d bytes", MaxBlock)
	}
	raw, ok := bytes.CutPrefix(raw, []byte(magic))
	if !ok {
		return nil, errors.New("not an SSH signature")
	}
	var b blob
	if err := ssh.Unmarshal(raw, &b); err != nil {
		return nil, fmt.Errorf("signature's body: %w", err)
	}
	return b.signature()
}

func (b *blob) signature() (*Signature, error) {
	if b.Version != version {
		return nil, fmt.Errorf("signature version %d", b.Version)
	}
	if b.Namespace == "" {
		return nil, errors.New("signature without a namespace")
	}
	if b.Hash != "sha512" && b.Hash != "sha256" {
		return nil, fmt.Errorf("signature with hash %q", b.Hash)
	}
	key, err := ssh.ParsePublicKey(b.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("signature's key: %w", err)
	}
	if !slices.Contains(keyTypes, key.Type()) {
		return nil, fmt.Errorf("signature by a key of type %s", key.Type())
	}
	s := &Signature{key: key, namespace: b.Namespace, reserved: b.Reserved, hash: b.Hash, signature: new(ssh.Signature)}
	if err := ssh.Unmarshal(b.Signature, s.signature); err != nil {
		return nil, fmt.Errorf("signature's signature: %w", err)
	}
	return s, nil
}
