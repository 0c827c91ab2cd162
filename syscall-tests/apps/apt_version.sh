apt-get --version
dpkg --version | head -1
dpkg -l | wc -l
