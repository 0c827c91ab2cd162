find / -xdev | wc -l
find /usr -xdev -type f -size +1000k | sort | md5sum
find /etc -xdev -type l -printf '%p %l\n' | sort | md5sum
du -s --apparent-size /usr/share/doc | cut -f1
