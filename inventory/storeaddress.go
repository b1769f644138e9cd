package inventory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// StoreAddress is where several controllers keep their state together: "etcd://HOST:PORT[,HOST:PORT...]/PREFIX". The zero value is the
// SQLite file in the state directory, of one controller.
type StoreAddress struct {
	Endpoints []string // HOST:PORT, each once
	Prefix    string   // of every key, without slashes at its ends
}

// Bounds of a store's address.
const (
	storeScheme      = "etcd://"
	maxEndpoints     = 9
	maxStoreAddress  = 1024
	maxStorePrefix   = 128
	maxStoreHostname = 253
)

// ParseStoreAddress reads a store's address; "" is the zero value.
func ParseStoreAddress(s string) (StoreAddress, error) {
	var a StoreAddress
	if s == "" {
		return a, nil
	}
	rest, ok := strings.CutPrefix(s, storeScheme)
	if !ok || len(s) > maxStoreAddress {
		return a, errors.New("a store is \"etcd://HOST:PORT[,HOST:PORT...]/PREFIX\"")
	}
	hosts, prefix, ok := strings.Cut(rest, "/")
	if !ok || !goodPrefix(prefix) {
		return a, fmt.Errorf("prefix %q: it is lower-case letters, digits and - in parts between slashes, at most %d bytes", prefix, maxStorePrefix)
	}
	for e := range strings.SplitSeq(hosts, ",") {
		if err := endpoint(e); err != nil {
			return StoreAddress{}, err
		}
		if slices.Contains(a.Endpoints, e) {
			return StoreAddress{}, fmt.Errorf("%s is named twice", e)
		}
		a.Endpoints = append(a.Endpoints, e)
	}
	if len(a.Endpoints) > maxEndpoints {
		return StoreAddress{}, fmt.Errorf("%d hosts are named, at most %d may be", len(a.Endpoints), maxEndpoints)
	}
	a.Prefix = prefix
	return a, nil
}

func goodPrefix(prefix string) bool {
	if len(prefix) > maxStorePrefix {
		return false
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "" || !plain(part, "-") {
			return false
		}
	}
	return true
}

// plain reports whether s is of lower-case letters, digits and these.
func plain(s, and string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(and, r) {
			return false
		}
	}
	return true
}

// endpoint checks one HOST:PORT in its one form.
func endpoint(s string) error {
	wrong := fmt.Errorf("%q is not HOST:PORT", s)
	i := strings.LastIndexByte(s, ':')
	if i < 1 {
		return wrong
	}
	host, port := s[:i], s[i+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return wrong
	}
	if inside, ok := strings.CutPrefix(host, "["); ok {
		inside, ok = strings.CutSuffix(inside, "]")
		if ip, err := netip.ParseAddr(inside); !ok || err != nil || !ip.Is6() || ip.Zone() != "" || ip.String() != inside {
			return wrong
		}
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		return nil
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || !plain(label, "-") || label[0] == '-' || label[len(label)-1] == '-' {
			return wrong
		}
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; len(host) > maxStoreHostname || plain(last, "") && strings.Trim(last, "0123456789") == "" {
		return wrong // what looks like an address and is none
	}
	return nil
}

// String is the one form of the address.
func (a StoreAddress) String() string {
	if len(a.Endpoints) == 0 {
		return ""
	}
	return storeScheme + strings.Join(a.Endpoints, ",") + "/" + a.Prefix
}

// Loopback reports whether every host is an address of this machine. A name is none: who answers to it is another's word.
func (a StoreAddress) Loopback() bool {
	for _, e := range a.Endpoints {
		ap, err := netip.ParseAddrPort(e)
		if err != nil || !ap.Addr().IsLoopback() {
			return false
		}
	}
	return true
}
