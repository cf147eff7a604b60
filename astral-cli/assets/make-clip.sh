#!/bin/sh
# Makes clip.mp4, the clip that `astral demo` streams: a drifting night sky with
# a running clock and soft tones, drawn by ffmpeg from formulas alone.
#
# It is 16 s long, so that it loops without a seam: 16 s are 480 pictures and
# exactly 750 AAC frames, the sky scrolls a whole number of times, and every
# tone and swell has a whole number of periods.
#
# Needs ffmpeg with libx264 and drawtext, and the font DejaVu Sans.  Usage: ./make-clip.sh [FONT.ttf]
set -eu
cd "$(dirname "$0")"
font=${1:-$(fc-match -f '%{file}' 'DejaVu Sans')}
seconds=16
frames=$((seconds * 30))

# The sky: a few colours that breathe once per clip, drawn small and enlarged.
sky="nullsrc=s=64x36:r=30:d=$seconds,format=gbrp,geq=\
r='14+26*(Y/H)*(1+sin(2*PI*T/16+X/W*3))/2':\
g='12+22*(Y/H)*(1+sin(2*PI*T/16+2+X/W*2))/2':\
b='38+64*(Y/H)*(1+sin(2*PI*T/16+1-X/W*2))/2',scale=640:360:flags=bicubic"
# Two layers of stars, each one picture that scrolls round: far ones once, near ones twice.
far="nullsrc=s=640x360:r=30:d=0.034,format=gray,geq=lum='if(gt(random(1),0.9975),90+130*random(2),0)',\
gblur=sigma=0.45,loop=-1:1,trim=end_frame=$frames,scroll=h=-1/$frames,format=gbrp"
near="nullsrc=s=640x360:r=30:d=0.034,format=gray,geq=lum='if(gt(random(3),0.9996),255,0)',\
gblur=sigma=1.1,eq=brightness=0.0:contrast=2.6,lutyuv=y='clip((val-1)*5,0,235)',loop=-1:1,\
trim=end_frame=$frames,scroll=h=-2/$frames,format=gbrp"
words="drawtext=fontfile=$font:text=Astral:fontsize=88:fontcolor=white@0.94:x=(w-tw)/2:y=104:\
shadowcolor=0x4060c0@0.5:shadowx=0:shadowy=3,\
drawtext=fontfile=$font:text='%{pts\\:hms}':fontsize=30:fontcolor=0xbcd0ff:x=(w-tw)/2:y=226,\
drawtext=fontfile=$font:text='live, from node to node':fontsize=17:fontcolor=0x8ea4e0:x=(w-tw)/2:y=278"

# A chord that swells in turn, and a quiet bell at every full second.
swell() { echo "(0.55+0.45*sin(2*PI*t/16*$1+$2))"; }
bell="0.09*exp(-7*mod(t,1))*sin(2*PI*880*t)"
left="0.10*sin(2*PI*110*t)+0.07*sin(2*PI*220*t)*$(swell 1 0)+0.06*sin(2*PI*277.1875*t)*$(swell 2 1)+0.05*sin(2*PI*329.625*t)*$(swell 3 2)+$bell"
right="0.10*sin(2*PI*110*t+0.4)+0.07*sin(2*PI*220*t+0.9)*$(swell 1 2)+0.06*sin(2*PI*277.1875*t+0.5)*$(swell 2 3)+0.05*sin(2*PI*415.3125*t)*$(swell 3 0)+$bell"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() { ffmpeg -hide_banner -loglevel error -y -fflags +bitexact "$@"; }

run -f lavfi -i "$sky" -f lavfi -i "$far" -f lavfi -i "$near" \
  -filter_complex "[0][1]blend=all_mode=screen[a];[a][2]blend=all_mode=screen,$words,format=yuv420p" \
  -c:v libx264 -profile:v main -preset veryslow -bf 0 -g 30 -keyint_min 30 -sc_threshold 0 \
  -b:v 440k -maxrate 500k -bufsize 500k -threads 1 -flags:v +bitexact "$work/video.mp4"
# Apart from the pictures, since ffmpeg ends all tracks where the first has its number of frames.
run -f lavfi -i "aevalsrc='$left|$right':s=48000:d=$seconds" -frames:a 750 \
  -c:a aac -b:a 96k -flags:a +bitexact "$work/audio.mp4"
run -i "$work/video.mp4" -i "$work/audio.mp4" -c copy -map_metadata -1 -movflags +faststart clip.mp4
