package device

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	wg "golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// MTU of the interface: what fits into 1500 bytes with WireGuard's header over IPv6.
const MTU = wg.DefaultMTU

// Config makes a device.
type Config struct {
	Name       string // the TUN interface, made by New
	PrivateKey Key
	Port       uint16 // UDP; 0 takes a free one
	Mark       uint32 // SO_MARK of the UDP sockets; 0 sets none
}

// Peer is the other end of a tunnel.
type Peer struct {
	PublicKey Key
	Preshared Key
	Endpoint  netip.AddrPort // zero: learnt from the peer's first packet
	Allowed   []netip.Prefix // inner addresses that are the peer's
	Keepalive time.Duration  // zero: none
}

// State is what is known of a peer: enough to let it go, and no more.
type State struct {
	LastHandshake  time.Time // zero: never
	Received, Sent uint64    // bytes on the wire
}

// Device is a running data plane. Its methods may be used by several goroutines at once.
type Device struct {
	wg   *wg.Device
	name string
}

// New makes the TUN interface and starts the data plane on it, without peers.
func New(c Config) (*Device, error) {
	if c.PrivateKey.IsZero() {
		return nil, fmt.Errorf("starting the tunnel on %s: no private key", c.Name)
	}
	t, err := tun.CreateTUN(c.Name, MTU)
	if err != nil {
		return nil, fmt.Errorf("making the interface %s: %w", c.Name, err)
	}
	silent := &wg.Logger{Verbosef: wg.DiscardLogf, Errorf: wg.DiscardLogf}
	d := &Device{wg: wg.NewDevice(t, conn.NewDefaultBind(), silent), name: c.Name}
	var b strings.Builder
	set(&b, "private_key", hex.EncodeToString(c.PrivateKey[:]))
	set(&b, "listen_port", strconv.Itoa(int(c.Port)))
	set(&b, "fwmark", strconv.FormatUint(uint64(c.Mark), 10))
	if err := d.apply(b.String()); err != nil {
		d.Close()
		return nil, fmt.Errorf("setting up the tunnel on %s: %w", c.Name, err)
	}
	if err := d.wg.Up(); err != nil {
		d.Close()
		return nil, fmt.Errorf("starting the tunnel on %s, UDP port %d: %w", c.Name, c.Port, err)
	}
	return d, nil
}

// Name is the interface's name.
func (d *Device) Name() string { return d.name }

// AddPeer adds a peer, or sets a known one anew.
func (d *Device) AddPeer(p Peer) error {
	if p.PublicKey.IsZero() || len(p.Allowed) == 0 {
		return errors.New("adding a peer: it needs a key and an inner address")
	}
	var b strings.Builder
	set(&b, "public_key", hex.EncodeToString(p.PublicKey[:]))
	set(&b, "preshared_key", hex.EncodeToString(p.Preshared[:]))
	if p.Endpoint.IsValid() {
		set(&b, "endpoint", p.Endpoint.String())
	}
	set(&b, "persistent_keepalive_interval", strconv.Itoa(int(p.Keepalive/time.Second)))
	set(&b, "replace_allowed_ips", "true")
	for _, a := range p.Allowed {
		set(&b, "allowed_ip", a.String())
	}
	if err := d.apply(b.String()); err != nil {
		return fmt.Errorf("adding a peer: %w", err)
	}
	return nil
}

// RemovePeer forgets a peer and its keys. An unknown key is no error.
func (d *Device) RemovePeer(public Key) error {
	var b strings.Builder
	set(&b, "public_key", hex.EncodeToString(public[:]))
	set(&b, "remove", "true")
	if err := d.apply(b.String()); err != nil {
		return fmt.Errorf("removing a peer: %w", err)
	}
	return nil
}

// Peers returns the state of every peer.
func (d *Device) Peers() (map[Key]State, error) {
	r := stateReader{states: map[Key]State{}}
	if err := d.wg.IpcGetOperation(&r); err != nil {
		return nil, errors.New("reading the peers: the device is closed")
	}
	return r.states, nil
}

// Wait returns a channel that is closed when the device has ended, also by itself: somebody deleted its interface.
func (d *Device) Wait() <-chan struct{} { return d.wg.Wait() }

// Close ends the data plane and removes the interface.
func (d *Device) Close() { d.wg.Close() }

// apply drops the cause that the layer below gives, which may quote an address; a taken port is worth telling.
func (d *Device) apply(config string) error {
	err := d.wg.IpcSet(config)
	var ipc *wg.IPCError
	if errors.As(err, &ipc) {
		return fmt.Errorf("the device refused the configuration (code %d)", ipc.ErrorCode())
	}
	return err
}

func set(b *strings.Builder, key, value string) {
	b.WriteString(key)
	b.WriteByte('=')
	b.WriteString(value)
	b.WriteByte('\n')
}

// stateReader picks the counters out of the device's own listing as it is written and keeps nothing else of it.
type stateReader struct {
	states  map[Key]State
	current Key
	known   bool
	line    []byte
}

func (r *stateReader) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\n' {
			r.line = append(r.line, c)
			continue
		}
		r.take(r.line)
		clear(r.line)
		r.line = r.line[:0]
	}
	return len(p), nil
}

func (r *stateReader) take(line []byte) {
	key, value, _ := bytes.Cut(line, []byte{'='})
	if string(key) == "public_key" {
		n, err := hex.Decode(r.current[:], value)
		r.known = err == nil && n == len(r.current)
		if r.known {
			r.states[r.current] = State{}
		}
		return
	}
	if !r.known {
		return
	}
	s := r.states[r.current]
	switch string(key) {
	case "last_handshake_time_sec":
		if n := number(value); n != 0 {
			s.LastHandshake = time.Unix(int64(n), 0)
		}
	case "rx_bytes":
		s.Received = number(value)
	case "tx_bytes":
		s.Sent = number(value)
	default:
		return
	}
	r.states[r.current] = s
}

func number(b []byte) uint64 {
	n, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
