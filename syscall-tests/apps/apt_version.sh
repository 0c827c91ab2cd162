apt-get --version
dpkg --version | sed -n 1p
dpkg -l | wc -l
