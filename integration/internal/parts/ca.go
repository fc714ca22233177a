package parts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// CA is a certificate authority that only one test trusts.
type CA struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// File is the PEM file of its certificate.
	File string
}

// KeyPair are the PEM files of a certificate and of its key.
type KeyPair struct{ CertFile, KeyFile string }

// NewCA makes an authority whose files are in dir, under this name.
func NewCA(dir, name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca %s: %w", name, err)
	}
	ca := &CA{dir: dir, key: key, File: filepath.Join(dir, name+".pem")}
	ca.cert, err = ca.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	return ca, writePEM(ca.File, "CERTIFICATE", ca.cert.Raw)
}

// Pool trusts the authority and nothing else.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Issue makes a certificate for these DNS names and addresses, good for servers
// and clients, and writes it under the first name.
func (ca *CA) Issue(names ...string) (KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("certificate of %s: %w", names[0], err)
	}
	cert, err := ca.issue(&key.PublicKey, names...)
	if err != nil {
		return KeyPair{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("key of %s: %w", names[0], err)
	}
	files, err := os.MkdirTemp(ca.dir, "cert-")
	if err != nil {
		return KeyPair{}, fmt.Errorf("certificate of %s: %w", names[0], err)
	}
	pair := KeyPair{CertFile: filepath.Join(files, "cert.pem"), KeyFile: filepath.Join(files, "key.pem")}
	return pair, errors.Join(writePEM(pair.CertFile, "CERTIFICATE", cert.Raw), writePEM(pair.KeyFile, "PRIVATE KEY", der))
}

// issue signs a key for these names.
func (ca *CA) issue(public any, names ...string) (*x509.Certificate, error) {
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	return ca.sign(leaf, ca.cert, public)
}

func (ca *CA) sign(leaf, parent *x509.Certificate, public any) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", leaf.Subject.CommonName, err)
	}
	leaf.SerialNumber = serial
	leaf.NotBefore, leaf.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if parent == nil {
		parent = leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", leaf.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// serverTLS is the configuration of a server with a certificate for these names.
func (ca *CA) serverTLS(names ...string) (*tls.Config, error) {
	pair, err := ca.Issue(names...)
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", names[0], err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

func writePEM(file, kind string, der []byte) error {
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", kind, err)
	}
	return nil
}
